/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists.  To add a call: give it to the one kind of thread that makes it, with
 * the narrowest condition that holds, and say why where that is not plain.  What a
 * list lacks shows as "stopped by its jail: forbidden system call".
 */
#include "machine/confine.h"

#include "base/checked.h"
#include "os/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/membarrier.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALL UINT32_MAX
#define RULE(name) { .nr = SYS_##name }
#define RULE_IF(name, number, want) { .nr = SYS_##name, .cond = { { (number), ALL, (uint32_t)(want) } } }
#define RULE_WITHOUT(name, number, bits) { .nr = SYS_##name, .cond = { { (number), (bits), 0 } } }
#define RULE_FAILS(name, errno_value) { .nr = SYS_##name, .error = (errno_value) }
#define LIST(array) (struct seccomp_list){ (array), ARRAY_SIZE(array) }

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
		      CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/* Memory, locks, time, the end of a thread; and write(), which wakes loops and reports what is forbidden. */
static const struct seccomp_rule common[] = {
	RULE(futex), RULE(write), RULE(close), RULE(rt_sigreturn), RULE(rt_sigprocmask), RULE(munmap), RULE(brk),
	RULE(exit), RULE(exit_group), RULE(sched_yield), RULE(restart_syscall), RULE(clock_gettime),
	RULE(clock_nanosleep), RULE(getpid), RULE(gettid), RULE(sched_getaffinity), RULE(sigaltstack),
	RULE_WITHOUT(mmap, 2, PROT_EXEC), RULE_WITHOUT(mprotect, 2, PROT_EXEC),
	RULE(mremap),	/* realloc() */
	RULE_IF(madvise, 2, MADV_DONTNEED), RULE_IF(madvise, 2, MADV_FREE), RULE_IF(madvise, 2, MADV_HUGEPAGE),
	RULE_IF(madvise, 2, MADV_MERGEABLE), RULE_IF(madvise, 2, MADV_DONTDUMP),
	/* abort(), and a fault that is not the guest's: the process is about to die of it. */
	RULE_IF(rt_sigaction, 0, SIGABRT), RULE_IF(rt_sigaction, 0, SIGSEGV), RULE_IF(rt_sigaction, 0, SIGBUS),
	RULE_IF(rt_sigaction, 0, SIGFPE), RULE_IF(rt_sigaction, 0, SIGILL), RULE_IF(rt_sigaction, 0, SIGTRAP),
};

static const struct seccomp_rule loops[] = {
	RULE(epoll_wait), RULE(epoll_pwait), RULE(epoll_ctl), RULE(read), RULE(timerfd_settime),
	RULE_IF(prctl, 0, PR_SET_NAME),
	RULE(getrandom),
};

/* Streams that exist already, or are pairs of Unix sockets. */
static const struct seccomp_rule streams[] = {
	RULE(readv), RULE(writev), RULE(recvfrom), RULE(recvmsg), RULE(sendto), RULE(sendmsg), RULE(shutdown),
	RULE_IF(fcntl, 1, F_GETFL), RULE_IF(fcntl, 1, F_SETFL), RULE_IF(fcntl, 1, F_SETFD),
};

static const struct seccomp_rule main_thread[] = {
	RULE_IF(socketpair, 0, AF_UNIX),	/* a new connection of the owner's to the guest */
	RULE_IF(ioctl, 1, FIONREAD),
	RULE(timer_delete),	/* of vCPUs, when the machine goes */
	RULE_IF(statx, 2, AT_SYMLINK_NOFOLLOW | AT_STATX_SYNC_AS_STAT | AT_EMPTY_PATH),	/* of files that the guest knows */
	RULE_IF(newfstatat, 3, AT_EMPTY_PATH),	/* fstat() of what the guest is to be saved in */
};

/* Registers of vCPUs of the translator are its own memory, but time goes on. */
static const struct seccomp_rule dbt_state[] = {
	RULE(timer_settime), RULE_IF(membarrier, 0, MEMBARRIER_CMD_PRIVATE_EXPEDITED),
};

static const struct seccomp_rule debugger[] = {
	RULE(accept4),
	{ .nr = SYS_setsockopt, .cond = { { 1, ALL, IPPROTO_TCP } } },
};

/* Threads of the pool come as they are needed.  clone3() hides its flags in memory: the C library has a plan B. */
static const struct seccomp_rule new_threads[] = {
	RULE_IF(clone, 0, THREAD_FLAGS), RULE_FAILS(clone3, ENOSYS), RULE(set_robust_list), RULE(rseq),
};

static const struct seccomp_rule disks[] = {
	RULE(preadv), RULE(pread64), RULE(lseek), RULE(fdatasync), RULE(fsync),
};

static const struct seccomp_rule disks_written[] = {
	RULE(pwritev), RULE(pwrite64), RULE(fallocate), RULE(ftruncate),
};

/* The map of an overlay goes to its file when the guest is saved. */
static const struct seccomp_rule disks_saved[] = {
	RULE(pwritev),
};

static const struct seccomp_rule folders[] = {
	RULE(openat), RULE(openat2), RULE(statx), RULE(newfstatat), RULE(fstatfs), RULE(readlinkat), RULE(getdents64),
	RULE(preadv2), RULE(flock), RULE(fgetxattr), RULE(flistxattr), RULE(syncfs),
	RULE(geteuid), RULE(getegid),
	RULE_IF(fcntl, 1, F_OFD_SETLK), RULE_IF(fcntl, 1, F_OFD_GETLK),
	RULE_IF(fcntl, 1, F_DUPFD), RULE_IF(fcntl, 1, F_DUPFD_CLOEXEC), RULE(dup),
};

static const struct seccomp_rule folders_written[] = {
	RULE(pwritev2), RULE(copy_file_range), RULE(fchmod), RULE(fchmodat), RULE(fchownat), RULE(utimensat),
	RULE(unlinkat), RULE(renameat), RULE(renameat2), RULE(linkat), RULE(symlinkat), RULE(mknodat), RULE(mkdirat),
	RULE(fsetxattr), RULE(fremovexattr), RULE(umask),
};

/* Sockets come from outside the jail (link/broker.h); here they are only used. */
static const struct seccomp_rule networks[] = {
	RULE(connect), RULE(bind), RULE(listen), RULE(accept), RULE(accept4), RULE(getsockname), RULE(getpeername),
	RULE(getsockopt), RULE(sendmmsg), RULE(recvmmsg),
	RULE_IF(setsockopt, 1, SOL_SOCKET), RULE_IF(setsockopt, 1, IPPROTO_TCP), RULE_IF(setsockopt, 1, IPPROTO_IP),
	RULE_IF(setsockopt, 1, IPPROTO_IPV6),
	RULE_IF(ioctl, 1, FIONREAD), RULE_IF(ioctl, 1, TUNSETOFFLOAD), RULE_IF(ioctl, 1, TUNSETVNETHDRSZ),
};

/* Its sockets are all Unix ones; the lock tells whether it may end. */
static const struct seccomp_rule switches[] = {
	RULE(accept4), RULE(sendmmsg), RULE(recvmmsg), RULE(flock), RULE(pwrite64), RULE(geteuid),
	RULE_IF(getsockopt, 1, SOL_SOCKET), RULE_IF(setsockopt, 1, SOL_SOCKET),
};

static const struct seccomp_rule dbt_thread[] = {
	RULE(timer_create), RULE_IF(madvise, 2, MADV_REMOVE),	/* mmu_give_back() */
};

/* By any thread whose device raises an interrupt. */
static const struct seccomp_rule kvm_interrupts[] = {
	RULE_IF(ioctl, 1, KVM_IRQ_LINE), RULE_IF(ioctl, 1, KVM_SIGNAL_MSI),
	{ .nr = SYS_tgkill },	/* a kick; of threads in our own pid namespace */
};

static const struct seccomp_rule kvm_thread[] = {
	RULE_IF(ioctl, 1, KVM_RUN), RULE_IF(ioctl, 1, KVM_SET_SIGNAL_MASK), RULE(rt_sigtimedwait),
};

static const struct seccomp_rule kvm_state[] = {
	RULE_IF(ioctl, 1, KVM_GET_REGS), RULE_IF(ioctl, 1, KVM_SET_REGS), RULE_IF(ioctl, 1, KVM_GET_SREGS),
	RULE_IF(ioctl, 1, KVM_SET_SREGS), RULE_IF(ioctl, 1, KVM_GET_XSAVE), RULE_IF(ioctl, 1, KVM_SET_XSAVE),
	RULE_IF(ioctl, 1, KVM_GET_XCRS), RULE_IF(ioctl, 1, KVM_SET_XCRS), RULE_IF(ioctl, 1, KVM_GET_MSRS),
	RULE_IF(ioctl, 1, KVM_SET_MSRS), RULE_IF(ioctl, 1, KVM_GET_LAPIC), RULE_IF(ioctl, 1, KVM_SET_LAPIC),
	RULE_IF(ioctl, 1, KVM_GET_VCPU_EVENTS), RULE_IF(ioctl, 1, KVM_SET_VCPU_EVENTS),
	RULE_IF(ioctl, 1, KVM_GET_DEBUGREGS), RULE_IF(ioctl, 1, KVM_SET_DEBUGREGS),
	RULE_IF(ioctl, 1, KVM_GET_MP_STATE), RULE_IF(ioctl, 1, KVM_SET_MP_STATE),
	RULE_IF(ioctl, 1, KVM_SET_GUEST_DEBUG), RULE_IF(ioctl, 1, KVM_GET_IRQCHIP), RULE_IF(ioctl, 1, KVM_GET_CLOCK),
	RULE_IF(ioctl, 1, KVM_GET_DIRTY_LOG), RULE_IF(ioctl, 1, KVM_SET_USER_MEMORY_REGION),
};

uint64_t confine_file_caps(const struct confine *c)
{
	uint64_t reading = 1ull << CAP_DAC_READ_SEARCH;
	/* Device nodes are not among it: they take rights outside the user namespace. */
	uint64_t writing = 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_CHOWN | 1ull << CAP_FOWNER | 1ull << CAP_FSETID |
			   1ull << CAP_SETFCAP;

	if (!c->folders || geteuid() != 0)
		return 0;
	return c->files_writable ? reading | writing : reading;
}

int confine_enter(const struct confine *c, enum confine_thread thread)
{
	struct seccomp_list list[12];
	uint64_t caps = 0;
	unsigned n = 0;

	list[n++] = LIST(common);
	if (c->kvm)
		list[n++] = LIST(kvm_interrupts);
	if (thread == CONFINE_MAIN || thread == CONFINE_FILES || thread == CONFINE_NET || thread == CONFINE_SWITCH)
		list[n++] = LIST(loops);
	switch (thread) {
	case CONFINE_MAIN:
		list[n++] = LIST(streams);
		list[n++] = LIST(main_thread);
		list[n++] = c->kvm ? LIST(kvm_state) : LIST(dbt_state);	/* the guest is saved, or GDB asks */
		if (c->files_writable)
			list[n++] = LIST(disks_saved);
		if (c->debugger)
			list[n++] = LIST(debugger);
		break;
	case CONFINE_FILES:
		caps = confine_file_caps(c);
		list[n++] = LIST(new_threads);
		list[n++] = LIST(disks);
		if (c->files_writable)
			list[n++] = LIST(disks_written);
		if (c->folders)
			list[n++] = LIST(folders);
		if (c->folders && c->files_writable)
			list[n++] = LIST(folders_written);
		break;
	case CONFINE_NET:
		list[n++] = LIST(streams);
		list[n++] = LIST(networks);
		break;
	case CONFINE_SWITCH:
		list[n++] = LIST(streams);
		list[n++] = LIST(switches);
		break;
	case CONFINE_DBT:
		list[n++] = LIST(dbt_thread);
		list[n++] = LIST(dbt_state);
		break;
	case CONFINE_KVM:
		list[n++] = LIST(kvm_thread);
		list[n++] = LIST(kvm_state);
		break;
	}
	list[n++] = seccomp_sanitizers;
	return jail_thread(caps, list, n);
}
