//! ppvmm.v1: the gRPC interface.
#![forbid(unsafe_code)]
