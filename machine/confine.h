/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each thread of a VM's process may ask of the kernel (os/jail.h).
 *
 *	main    console, vsock, control messages, debugger
 *	files   the "io" thread and its pool: file systems and disks
 *	net     networks
 *	dbt     vCPUs of the translator
 *	kvm     vCPUs of KVM
 *	switch  the one thread of a named network's switch (machine/networks.h)
 *
 * Threads share their memory: who has taken over one can make another act for
 * him.  What no thread may do is what the jail is good for; the differences
 * between threads are there to make that harder.
 */
#ifndef MACHINE_CONFINE_H
#define MACHINE_CONFINE_H

#include <stdbool.h>
#include <stdint.h>

enum confine_thread { CONFINE_MAIN, CONFINE_FILES, CONFINE_NET, CONFINE_DBT, CONFINE_KVM, CONFINE_SWITCH };

/* What the machine is made of, as far as it matters here. */
struct confine {
	bool kvm;	/* interrupts are raised by ioctl() */
	bool debugger;	/* main answers GDB */
	bool files_writable;	/* a share or disk can be written to */
	bool folders;	/* there are shared folders */
	bool sockets;	/* user networks want them */
	bool captures;	/* packets are written to a file that is open */
};

/* Capabilities, as bits, that the file server needs to serve folders with the owners they have: as root only. */
uint64_t confine_file_caps(const struct confine *confine);

/*
 * Puts the calling thread under the rules of @thread.  Call it in each thread
 * before it handles anything of the guest's.  0 or a negative errno.
 */
int confine_enter(const struct confine *confine, enum confine_thread thread);

#endif /* MACHINE_CONFINE_H */
