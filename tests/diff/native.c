/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host CPU's side.  An item runs in this very process, entered with IRETQ
 * and left by the signal that its last exception makes.  While it runs, FS is
 * the item's: the handler restores it before anything that might use TLS, so it
 * is built without stack protector or sanitizers.
 *
 * The translator has handlers for the same signals; faults that are not ours go
 * on to them.
 */
#include "tests/diff/diff.h"
#include "tests/diff/layout.h"

#include "base/checked.h"
#include "os/err.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define TRAP_BP 3
#define WATCH_MS 50
#define SW_RESERVED 464	/* where the kernel describes an extended frame, within the FXSAVE image */
#define SW_MAGIC 0x46505853u

struct native_job {
	uint64_t gpr[GPR_COUNT];
	uint64_t frame[5];
	uint64_t fs, gs;
	uint32_t data_sel, pad;
	uint64_t xcr0, xsave, host_rsp;
};

_Static_assert(offsetof(struct native_job, frame) == NJOB_FRAME, "assembly");
_Static_assert(offsetof(struct native_job, fs) == NJOB_FS, "assembly");
_Static_assert(offsetof(struct native_job, data_sel) == NJOB_DATA_SEL, "assembly");
_Static_assert(offsetof(struct native_job, xcr0) == NJOB_XCR0, "assembly");
_Static_assert(offsetof(struct native_job, xsave) == NJOB_XSAVE, "assembly");
_Static_assert(offsetof(struct native_job, host_rsp) == NJOB_HOST_RSP, "assembly");

void native_enter(struct native_job *job);
void native_leave(void);

static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };

static struct sigaction translators[NSIG];
static struct native_job job;
static struct outcome *outcome;
static volatile bool running;
static _Atomic uint32_t runs;
static uint64_t host_fs;
static pid_t main_tid;

#define BARE __attribute__((no_sanitize("address", "undefined"), optimize("no-stack-protector")))
#ifdef __clang__
#undef BARE
#define BARE __attribute__((no_sanitize("address", "undefined"), no_stack_protector))
#endif

BARE static void copy(void *dst, const void *src, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

/* Takes the state at the end of an item, and makes the signal return to native_leave. */
BARE static void take_state(int sig, const siginfo_t *info, ucontext_t *uc)
{
	static const int order[] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				     REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
	uint32_t magic, size, mxcsr = 0x1f80;
	uint16_t control = 0x37f;

	for (unsigned i = 0; i < GPR_COUNT; i++)
		outcome->regs.gpr[i] = (uint64_t)g[order[i]];
	outcome->regs.rip = (uint64_t)g[REG_RIP];
	outcome->regs.rflags = (uint64_t)g[REG_EFL];
	outcome->vector = sig == SIGTRAP && info->si_code == SI_TKILL ? OUTCOME_HANG : (int)g[REG_TRAPNO];
	outcome->error = (uint32_t)g[REG_ERR];
	outcome->cr2 = (uint64_t)g[REG_CR2];
	copy(&magic, fp + SW_RESERVED, 4);
	copy(&size, fp + SW_RESERVED + 16, 4);	/* _fpx_sw_bytes.xstate_size */
	if (magic != SW_MAGIC || size > VCPU_XSAVE_MAX)
		size = magic == SW_MAGIC ? VCPU_XSAVE_MAX : 512;
	copy(outcome->regs.xsave, fp, size);

	copy(fp, &control, 2);
	fp[2] = fp[3] = fp[4] = fp[5] = 0;
	copy(fp + 24, &mxcsr, 4);
	g[REG_RIP] = (greg_t)(uintptr_t)native_leave;
	g[REG_RSP] = (greg_t)job.host_rsp;
	g[REG_EFL] = 0x202;
	g[REG_CSGSFS] = (greg_t)((uint64_t)SEL_USER_DATA << 48 | SEL_USER_CODE64);
}

BARE static void on_signal(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *next = &translators[sig];

	if (running) {
		__asm__ volatile("rdfsbase %0" : "=r"(outcome->regs.fs_base));
		__asm__ volatile("rdgsbase %0" : "=r"(outcome->regs.gs_base));
		__asm__ volatile("wrfsbase %0" : : "r"(host_fs));
		__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(0));
		running = false;
		take_state(sig, info, context);
	} else if (info->si_code != SI_TKILL && next->sa_flags & SA_SIGINFO && next->sa_sigaction) {
		next->sa_sigaction(sig, info, context);
	} else if (info->si_code != SI_TKILL) {
		(void)signal(sig, SIG_DFL);
	}
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	(void)nanosleep(&t, NULL);
}

/* Ends items that do not end, on either side. */
static void *watch(void *arg)
{
	uint32_t seen = 0;
	unsigned same = 0;

	(void)arg;
	for (;;) {
		uint32_t now = atomic_load(&runs);

		sleep_ms(WATCH_MS);
		if (now != seen) {
			seen = now;
			same = 0;
			continue;
		}
		if (++same < 2)
			continue;
		if (running)
			(void)syscall(SYS_tgkill, getpid(), main_tid, SIGTRAP);
		else if (same >= 60)
			guest_stop();
	}
	return NULL;
}

int native_create(struct err *err)
{
	const size_t stack_bytes = 1u << 17;
	stack_t stack = { .ss_size = stack_bytes, .ss_flags = (int)(1u << 31) /* SS_AUTODISARM */ };
	struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	pthread_t thread;

	for (unsigned i = 0; i < DIFF_PAGES; i++) {
		void *at = (void *)(uintptr_t)diff_pages[i].va;

		if (mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
			return err_set(err, -errno, "cannot map a page at %p: %s", at, strerror(errno));
	}
	if (mprotect((void *)(uintptr_t)CODE_VA, (size_t)2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) < 0)
		return err_set(err, -errno, "this host forbids writable code: %s", strerror(errno));
	stack.ss_sp = mmap(NULL, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stack.ss_sp == MAP_FAILED || sigaltstack(&stack, NULL) < 0)
		return err_set(err, -errno, "cannot make a signal stack: %s", strerror(errno));
	(void)sigfillset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		if (sigaction(signals[i], &sa, &translators[signals[i]]) < 0)
			return err_set(err, -errno, "cannot take signals: %s", strerror(errno));
	__asm__ volatile("rdfsbase %0" : "=r"(host_fs));
	main_tid = gettid();
	if (pthread_create(&thread, NULL, watch, NULL))
		return err_set(err, -EAGAIN, "cannot start a thread");
	(void)pthread_detach(thread);
	return 0;
}

static void fill_job(const struct item *item, const struct regs *regs)
{
	memcpy(job.gpr, regs->gpr, sizeof(job.gpr));
	job.frame[0] = regs->rip;
	job.frame[1] = item->code32 ? SEL_USER_CODE32 : SEL_USER_CODE64;
	job.frame[2] = regs->rflags;
	job.frame[3] = regs->gpr[RSP];
	job.frame[4] = SEL_USER_DATA;
	job.fs = regs->fs_base;
	job.gs = regs->gs_base;
	job.data_sel = item->code32 ? SEL_USER_DATA : 0;
	job.xcr0 = diff_xcr0;
	job.xsave = (uint64_t)(uintptr_t)regs->xsave;
}

static void load_pages(const uint8_t *pages)
{
	for (unsigned i = 0; i < DIFF_PAGES; i++) {
		void *at = (void *)(uintptr_t)diff_pages[i].va;
		bool fixed = !(diff_pages[i].prot & DIFF_WRITE);

		if (fixed && memcmp(at, pages + (size_t)i * PAGE, PAGE) == 0)
			continue;
		if (fixed)
			(void)mprotect(at, PAGE, PROT_READ | PROT_WRITE);
		memcpy(at, pages + (size_t)i * PAGE, PAGE);
		if (fixed)
			(void)mprotect(at, PAGE, PROT_READ);
	}
}

void native_run(const struct item *item, const struct regs *regs, const uint8_t *pages,
		struct outcome *ret_outcome)
{
	load_pages(pages);
	fill_job(item, regs);
	outcome = ret_outcome;
	atomic_fetch_add(&runs, 1);
	running = true;
	native_enter(&job);
	atomic_fetch_add(&runs, 1);
}

bool native_has_32(void)
{
	struct item item = { .seed = 1, .code32 = true, .len = 1, .code = { 0x40 } };	/* inc eax; REX in 64-bit mode */
	static uint8_t pages[DIFF_PAGES * PAGE];
	static struct regs regs;
	static struct outcome out;

	state_init(&item, &regs, pages);
	native_run(&item, &regs, pages, &out);
	return out.vector == TRAP_BP && (uint32_t)out.regs.gpr[RAX] == (uint32_t)regs.gpr[RAX] + 1;
}

const uint8_t *native_page(unsigned page)
{
	return (const uint8_t *)(uintptr_t)diff_pages[page].va;
}
