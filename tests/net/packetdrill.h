/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What packetdrill asks of a network stack that it tests as a shared object
 * (its option --so_filename): the names, order and types of the slots are those of
 * struct packetdrill_interface in gtests/net/packetdrill/packetdrill.h of
 * https://github.com/google/packetdrill, as of 2024.  Calls return what the system calls of
 * their name do, with errno; packets are IP packets without a link-layer header.
 */
#ifndef TESTS_NET_PACKETDRILL_H
#define TESTS_NET_PACKETDRILL_H

#include "net/types.h"

#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>

struct packetdrill_interface {
	void *userdata;	/* first argument of everything else */
	void (*free)(void *stack);
	int (*socket)(void *stack, int domain, int type, int protocol);
	int (*bind)(void *stack, int fd, const struct sockaddr *addr, socklen_t len);
	int (*listen)(void *stack, int fd, int backlog);
	int (*accept)(void *stack, int fd, struct sockaddr *addr, socklen_t *len);
	int (*connect)(void *stack, int fd, const struct sockaddr *addr, socklen_t len);
	ssize_t (*read)(void *stack, int fd, void *buf, size_t size);
	long (*readv)(void);	/* (void): we have none, whatever the arguments */
	ssize_t (*recv)(void *stack, int fd, void *buf, size_t size, int flags);
	long (*recvfrom)(void);
	long (*recvmsg)(void);
	ssize_t (*write)(void *stack, int fd, const void *buf, size_t len);
	long (*writev)(void);
	ssize_t (*send)(void *stack, int fd, const void *buf, size_t len, int flags);
	long (*sendto)(void);
	long (*sendmsg)(void);
	int (*fcntl)(void *stack, int fd, int command, ...);
	int (*ioctl)(void *stack, int fd, unsigned long request, ...);
	int (*close)(void *stack, int fd);
	int (*shutdown)(void *stack, int fd, int how);
	int (*getsockopt)(void *stack, int fd, int level, int name, void *value, socklen_t *len);
	int (*setsockopt)(void *stack, int fd, int level, int name, const void *value, socklen_t len);
	int (*poll)(void *stack, struct pollfd *fds, nfds_t count, int timeout_ms);
	/* A packet for the stack: 0 or -1. */
	int (*netdev_send)(void *stack, const void *packet, size_t len);
	/*
	 * The next packet that the stack sends, and when (us): waits for it.  *@len is the size
	 * of @buf, then that of the packet; 0 when none will come.  0 or -1: ask again.
	 */
	int (*netdev_receive)(void *stack, void *buf, size_t *len, long long *time_us);
	int (*usleep)(void *stack, useconds_t us);
	int (*gettimeofday)(void *stack, struct timeval *time, struct timezone *zone);
	long (*epoll_create)(void);
	long (*epoll_ctl)(void);
	long (*epoll_wait)(void);
	long (*pipe)(void);
	long (*splice)(void);
};

/* The symbol that is looked up.  @flags is the value of --so_flags, or NULL; see packetdrill.c. */
__attribute__((visibility("default"))) void
packetdrill_interface_init(const char *flags, struct packetdrill_interface *ret_interface);

/* For our own runner: packets sent that netdev_receive() did not give yet. */
unsigned packetdrill_pending(const struct packetdrill_interface *interface);

/* Our address, where neither bind() nor a packet names another. */
struct net_addr packetdrill_own(bool v6);

/*
 * Options of sockets for what owners of connections of net/ do and sockets do not.
 * All values are ints.  packetdrill learns the names by its option --define (run_packetdrill.py).
 */
#define SOL_ROUX 29295
enum {
	/* Set, of a listener: 1: connection requests wait for ROUX_ANSWER (0: accepted at once). */
	ROUX_DEFER = 1,
	/* Set, of a listener, answers the oldest that waits: 0 accepted, 1 refused, 2 host unreachable. */
	ROUX_ANSWER = 2,
	/* Get, of a listener: how many wait. */
	ROUX_REQUESTS = 3,
	/* Get, of a listener: why the last one ended that was not accepted (errno). */
	ROUX_FAILED = 4,
	/* Set, of any socket: 1: the link takes TCP segments of up to 64 KiB. */
	ROUX_TSO = 5,
};

#endif /* TESTS_NET_PACKETDRILL_H */
