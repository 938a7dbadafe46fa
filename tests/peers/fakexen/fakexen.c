// SPDX-License-Identifier: GPL-3.0-only
//
// Stands for the Xen libraries under an unmodified xenstored or oxenstored, so that it runs without a hypervisor.
// Loaded with LD_PRELOAD; everything lies in the directory that FAKEXEN_DIR names:
//
//   domains   one byte for each domid, kept by whoever plays the hypervisor: enum state
//   ring.N    the store page of domain N
//   events    FIFO to the daemon: a native u32 is the number of the port that became pending
//   bell.N    FIFO to domain N: a byte for each notice of the daemon
//
// Ports: 1 is VIRQ_DOM_EXC, 100 + N the store's port of domain N. Nothing is checked: the daemon is no enemy here.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#define XC_BUILD 0
#include <xenctrl.h>

enum state { STATE_NONE = 0, STATE_EXISTS = 1, STATE_SHUTDOWN = 2, STATE_DYING = 4 };
enum { DOMIDS = 0x7ff0, PORT_VIRQ = 1, PORT_FIRST = 100, PAGE = 4096 };

static const char *in_dir(const char *name)
{
	static char paths[8][512];
	static unsigned int next;
	char *path = paths[next++ % 8];
	const char *dir = getenv("FAKEXEN_DIR");

	snprintf(path, sizeof(paths[0]), "%s/%s", dir ? dir : ".", name);
	return path;
}

static const char *numbered(const char *name, uint32_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%s.%u", name, number);
	return in_dir(text);
}

// ---- domains

static enum state state_of(uint32_t domid)
{
	static const uint8_t *states;

	if (domid == 0)
		return STATE_EXISTS;
	if (!states) {
		int fd = open(in_dir("domains"), O_RDONLY | O_CLOEXEC);
		void *map = fd < 0 ? MAP_FAILED : mmap(NULL, DOMIDS, PROT_READ, MAP_SHARED, fd, 0);

		if (map == MAP_FAILED)
			return STATE_NONE;
		states = map;
		close(fd);
	}
	return domid < DOMIDS ? states[domid] : STATE_NONE;
}

// ---- event channels

struct xenevtchn_handle {
	int events;
};
static struct xenevtchn_handle channels = { -1 };
// Write end of a domain's bell plus one; 0 is none.
static int bells[DOMIDS];

struct xenevtchn_handle *xenevtchn_open(void *logger, unsigned int flags)
{
	channels.events = open(in_dir("events"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return channels.events < 0 ? NULL : &channels;
}

struct xenevtchn_handle *xenevtchn_fdopen(void *logger, int fd, unsigned int flags)
{
	channels.events = fd;
	return &channels;
}

int xenevtchn_close(struct xenevtchn_handle *handle) { return 0; }
int xenevtchn_fd(struct xenevtchn_handle *handle) { return channels.events; }
int xenevtchn_bind_virq(struct xenevtchn_handle *handle, unsigned int virq) { return PORT_VIRQ; }
int xenevtchn_unmask(struct xenevtchn_handle *handle, uint32_t port) { return 0; }

int xenevtchn_bind_interdomain(struct xenevtchn_handle *handle, uint32_t domid, uint32_t remote_port)
{
	enum state state = state_of(domid);

	// A dying domain's ports are closed.
	if (state == STATE_NONE || (state & STATE_DYING)) {
		errno = EINVAL;
		return -1;
	}
	return PORT_FIRST + domid;
}

int xenevtchn_bind_unbound_port(struct xenevtchn_handle *handle, uint32_t domid)
{
	return PORT_FIRST + domid;
}

int xenevtchn_unbind(struct xenevtchn_handle *handle, uint32_t port)
{
	uint32_t domid = port - PORT_FIRST;

	if (domid < DOMIDS && bells[domid]) {
		close(bells[domid] - 1);
		bells[domid] = 0;
	}
	return 0;
}

int xenevtchn_notify(struct xenevtchn_handle *handle, uint32_t port)
{
	uint32_t domid = port - PORT_FIRST;

	if (domid >= DOMIDS)
		return 0;
	if (!bells[domid])
		bells[domid] = open(numbered("bell", domid), O_RDWR | O_NONBLOCK | O_CLOEXEC) + 1;
	// A full FIFO is one that its reader will find readable.
	if (bells[domid] && write(bells[domid] - 1, "", 1) < 0 && errno != EAGAIN)
		return -1;
	return 0;
}

int xenevtchn_pending(struct xenevtchn_handle *handle)
{
	uint32_t port;

	return read(channels.events, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}

// ---- store pages

static int grants;

static void *map_ring(uint32_t domid)
{
	int fd = open(numbered("ring", domid), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	void *page;

	if (fd < 0 || ftruncate(fd, PAGE))
		return NULL;
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? NULL : page;
}

void *xengnttab_open(void *logger, unsigned int flags) { return &grants; }
int xengnttab_close(void *handle) { return 0; }
int xengnttab_set_max_grants(void *handle, uint32_t count) { return 0; }
int xengnttab_unmap(void *handle, void *start, uint32_t count) { return munmap(start, PAGE); }

// ---- domain information

static int control;

void *xengnttab_map_grant_ref(void *handle, uint32_t domid, uint32_t ref, int prot)
{
	if (state_of(domid) == STATE_NONE) {
		errno = EINVAL;
		return NULL;
	}
	return map_ring(domid);
}

void *xc_map_foreign_range(xc_interface *handle, uint32_t domid, int bytes, int prot, unsigned long mfn)
{
	return xengnttab_map_grant_ref(NULL, domid, 1, prot);
}

xc_interface *xc_interface_open(xentoollog_logger *log, xentoollog_logger *domain_log, unsigned int flags)
{
	return (xc_interface *)&control;
}

int xc_interface_close(xc_interface *handle) { return 0; }

int xc_domain_getinfo(xc_interface *handle, uint32_t first, unsigned int count, xc_dominfo_t *info)
{
	enum state state = state_of(first);

	memset(info, 0, sizeof(*info));
	if (state == STATE_NONE)
		return 0;
	info->domid = first;
	info->running = 1;
	info->shutdown = !!(state & STATE_SHUTDOWN);
	info->dying = !!(state & STATE_DYING);
	return 1;
}

int xc_domain_getinfolist(xc_interface *handle, uint32_t first, unsigned int count, xc_domaininfo_t *info)
{
	unsigned int found = 0;
	uint32_t domid;

	for (domid = first; domid < DOMIDS && found < count; domid++) {
		enum state state = state_of(domid);

		if (state == STATE_NONE)
			continue;
		memset(&info[found], 0, sizeof(info[found]));
		info[found].domain = domid;
		info[found].flags = (state & STATE_SHUTDOWN ? XEN_DOMINF_shutdown : 0) |
				    (state & STATE_DYING ? XEN_DOMINF_dying : 0);
		found++;
	}
	return found;
}

// ---- the machine around the daemon

static const char *moved(const char *name)
{
	FILE *file;

	if (!strcmp(name, "/proc/xen/xsd_kva") || !strcmp(name, "/dev/xen/xsd_kva")) {
		void *page = map_ring(0);

		if (page)
			munmap(page, PAGE);
		return numbered("ring", 0);
	}
	if (!strcmp(name, "/proc/xen/xsd_port") || !strcmp(name, "/dev/xen/xsd_port")) {
		file = fopen(in_dir("port"), "w");
		if (file) {
			fputs("1", file);
			fclose(file);
		}
		return in_dir("port");
	}
	return name;
}

#define OPEN(name)                                                                      \
	int name(const char *path, int flags, ...)                                      \
	{                                                                               \
		static int (*real)(const char *, int, ...);                             \
		mode_t mode = 0;                                                        \
		va_list rest;                                                           \
                                                                                        \
		if (flags & (O_CREAT | __O_TMPFILE)) {                                  \
			va_start(rest, flags);                                          \
			mode = va_arg(rest, mode_t);                                    \
			va_end(rest);                                                   \
		}                                                                       \
		if (!real)                                                              \
			real = dlsym(RTLD_NEXT, #name);                                 \
		if (!strncmp(path, "/proc/xen/", 10) || !strncmp(path, "/dev/xen/", 9)) \
			path = moved(path);                                             \
		return real(path, flags, mode);                                         \
	}
OPEN(open)
OPEN(open64)

// oxenstored's socket and run directory are fixed at build time. The real ones are none of our business.

static int is_stock_socket(const char *path) { return strstr(path, "run/xenstored/socket") != NULL; }

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	static int (*real)(int, const struct sockaddr *, socklen_t);
	const struct sockaddr_un *stock = (const void *)address;
	struct sockaddr_un ours = { .sun_family = AF_UNIX };

	if (!real)
		real = dlsym(RTLD_NEXT, "bind");
	if (address->sa_family != AF_UNIX || !is_stock_socket(stock->sun_path))
		return real(fd, address, length);
	strncpy(ours.sun_path, in_dir("socket"), sizeof(ours.sun_path) - 1);
	return real(fd, (void *)&ours, sizeof(ours));
}

int unlink(const char *path)
{
	static int (*real)(const char *);

	if (!real)
		real = dlsym(RTLD_NEXT, "unlink");
	return real(is_stock_socket(path) ? in_dir("socket") : path);
}

int chmod(const char *path, mode_t mode)
{
	static int (*real)(const char *, mode_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "chmod");
	return real(is_stock_socket(path) ? in_dir("socket") : path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	static int (*real)(const char *, mode_t);

	if (!real)
		real = dlsym(RTLD_NEXT, "mkdir");
	if (!strcmp(path, "/var/run/xenstored") || !strcmp(path, "/run/xenstored")) {
		errno = EEXIST;
		return -1;
	}
	return real(path, mode);
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit) { return 0; }
