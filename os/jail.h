/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A jail for a process that handles hostile input.  It is closed in steps, because
 * a process needs its host to get ready:
 *
 *	jail_fork()	namespaces that only a new process can have
 *	  ... open files, folders, sockets and devices ...
 *	jail_enter()	empty root, no network, no rights, limits
 *	  ... start threads ...
 *	jail_thread()	in every thread: its capabilities and system calls
 *
 *	            as root                          as an ordinary user
 *	fork        mount pid ipc uts                user (one id) mount pid ipc uts
 *	enter       net, then user (all ids as       net
 *	            they are)
 *
 * As root the user namespace comes last: what was made before belongs to the
 * initial one, so that no capability left inside has a say in any of it.
 *
 * Where the host forbids namespaces the rest still holds (jail->spaces tells).
 *
 * jail_fork() leaves a second process, the helper, outside.  It writes the id
 * maps that only an outsider may write, and then ends, or serves the jailed one
 * as the caller likes; the two are joined by a SOCK_SEQPACKET socket.
 *
 * Threads: jail_fork() and jail_enter() need a process with one thread.
 */
#ifndef OS_JAIL_H
#define OS_JAIL_H

#include "os/seccomp.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

struct jail {
	int helper;	/* socket to the other process, owned; -1: none */
	unsigned spaces;	/* CLONE_NEW* of the namespaces that are our own */
	uid_t uid;	/* effective ids before all this */
	gid_t gid;
};

/*
 * Splits the process in two.  Returns 0 in the child, which is the one to be
 * jailed and a child of our *parent* (who waits for it), and its process id in the
 * caller, which becomes the helper and is to call jail_help() after it has told the
 * parent that id.  Or returns a negative errno.
 */
pid_t jail_fork(struct jail *ret_jail, struct err *err);

/*
 * The helper's work.  Lets child @pid run, and returns when that wants nothing more:
 * true when it asks for a server behind jail->helper from now on.
 */
bool jail_help(const struct jail *jail, pid_t pid);

/* In the child, at once: waits for jail_help() and finishes what jail_fork() began. */
int jail_wait(struct jail *jail, struct err *err);

/*
 * A descriptor (O_PATH) of folder @fd as root of a mount tree of its own: ".." does
 * not lead out of it, and @read_only, nosuid, nodev and noexec hold whatever the
 * host's mounts say.  -EPERM and others where the kernel or the host forbids it.
 */
int jail_detach(int fd, bool read_only);

struct jail_options {
	uint64_t caps;	/* capabilities that some thread will keep: bit per CAP_* */
	bool no_files;	/* nothing will be written to a file */
	bool keep_stderr;	/* else it becomes /dev/null: a terminal could be read through it */
	unsigned nthreads;	/* at most so many; 0: not limited */
	bool server;	/* the helper stays, as a server behind jail->helper */
	/* Told of the first forbidden system call.  Async-signal-safe; the process is killed when it returns. */
	void (*forbidden)(long nr);
};

/*
 * Closes the jail, for threads made later too; there is no way back.  0, or a
 * negative errno with a sentence when a step failed that the host does allow.
 */
int jail_enter(struct jail *jail, const struct jail_options *options, struct err *err);

/* Reduces the calling thread to capabilities @caps and the system calls of @lists.  0 or a negative errno. */
int jail_thread(uint64_t caps, const struct seccomp_list *lists, size_t nlists);

/* Closes every descriptor from @first on. */
void jail_close_from(int first);

/* 0 when this host lets us have all namespaces; else -EPERM or the like and a sentence on what forbids it. */
int jail_probe(struct err *err);

#endif /* OS_JAIL_H */
