//! Header words: a value that only grows, with a check, in one atomic word.
//!
//! ```text
//!   bits 63..16 value    bits 15..0 check
//! ```
//!
//! The check is the three 16-bit lanes of the value, rotated by different amounts, added without carry. So any damage
//! within one lane, or to the check alone, is found; a word of zeros is the value 0.

const VALUE_BITS: u32 = 48;

/// The first value that a word cannot hold.
pub(super) const VALUE_END: u64 = 1 << VALUE_BITS;

/// The word for a value below [`VALUE_END`].
pub(super) fn encode(value: u64) -> u64 {
    assert!(value < VALUE_END, "{value} does not fit into a header word");
    value << 16 | u64::from(check(value))
}

/// The value of a word; `None` if the check does not hold.
pub(super) fn decode(word: u64) -> Option<u64> {
    let value = word >> 16;
    (u64::from(check(value)) == word & 0xffff).then_some(value)
}

#[expect(clippy::cast_possible_truncation, reason = "lanes of 16 bits")]
fn check(value: u64) -> u16 {
    (value as u16) ^ ((value >> 16) as u16).rotate_left(5) ^ ((value >> 32) as u16).rotate_left(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_is_read_back_and_damage_within_two_bytes_is_found(
            value in 0..VALUE_END, lane in 0_u32..4, mask in 1_u64..0x1_0000,
        ) {
            let word = encode(value);
            prop_assert_eq!(decode(word), Some(value));
            prop_assert_eq!(decode(word ^ mask << (16 * lane)), None);
        }

        #[test]
        fn words_grow_with_their_values(a in 0..VALUE_END, b in 0..VALUE_END) {
            prop_assert_eq!(a.cmp(&b), encode(a).cmp(&encode(b)));
        }
    }

    #[test]
    fn zeroed_memory_is_the_value_zero() {
        assert_eq!((decode(0), encode(0)), (Some(0), 0));
    }
}
