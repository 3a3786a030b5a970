/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: the run loop, HLT, and the signals by which the host CPU reports faults of guest code.
 *
 * Signals: SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP are taken process-wide
 * when the first VM is made; outside translated code they go to whoever had them
 * before.  They run on an alternate stack, because RSP may hold anything while
 * guest code runs.  vCPU threads block every other signal but the timer's.
 */
#include "engine/dbt/vcpu.h"

#include "base/checked.h"
#include "engine/dbt/run.h"
#include "os/err.h"
#include "os/log.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define TIMER_SIGNAL (SIGRTMIN + 1)

static __thread struct cpu *current_cpu;
static struct sigaction previous[NSIG];

/* ------------------------------------------------------------------ signals */

static bool is_fault_in_code(const struct cpu *cpu, uint64_t pc)
{
	const struct code_cache *cc = cpu->vm->cc;

	return pc >= (uint64_t)(uintptr_t)cc->rx && pc < (uint64_t)(uintptr_t)cc->rx + cc->size;
}

/* Whether the stack of returns.c is full: what is pushed would lie in the page in front of it. */
static bool is_below_returns(const struct cpu *cpu, uint64_t address)
{
	return address - (cpu->guard + GUARD_PAGES * PAGE_SIZE) < PAGE_SIZE;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *old = &previous[sig];

	if (old->sa_flags & SA_SIGINFO && old->sa_sigaction) {
		old->sa_sigaction(sig, info, context);
	} else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
		old->sa_handler(sig);
	} else {
		/* Let the instruction fault again with the default action. */
		(void)sigaction(sig, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	}
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	static const int order[] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				     REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	struct cpu *cpu = current_cpu;

	if (!cpu || !is_fault_in_code(cpu, (uint64_t)g[REG_RIP])) {
		pass_on(sig, info, context);
		return;
	}
	if (g[REG_TRAPNO] == VEC_PF && is_below_returns(cpu, (uint64_t)g[REG_CR2])) {
		g[REG_RSP] = (greg_t)cpu->returns_empty;	/* and once more */
		return;
	}
	for (unsigned r = 0; r < ARRAY_SIZE(order); r++) {
		if (is_scratch(r))
			cpu->scratch[r - T0] = (uint64_t)g[order[r]];
		else
			cpu->gpr[r] = (uint64_t)g[order[r]];
	}
	cpu->flags = (uint64_t)g[REG_EFL];
	cpu->in_code = 0;
	cpu->fault.pc = (uint64_t)g[REG_RIP];
	cpu->fault.vector = (uint8_t)g[REG_TRAPNO];
	if (sig == SIGBUS && g[REG_TRAPNO] != VEC_AC)
		cpu->fatal = "the host has no memory left for the guest; give it less with --memory, or free some";
	else if (g[REG_TRAPNO] == VEC_PF && (uint64_t)g[REG_CR2] - cpu->guard < GUARD_PAGES * PAGE_SIZE)
		cpu->fault.address = (uint64_t)g[REG_CR2];
	else if (g[REG_TRAPNO] == VEC_PF)
		cpu->fatal = "translated code made a wild access (please report this)";
	if (cpu->fatal)
		cpu->leave = LEAVE_ERROR;
	g[REG_RIP] = (greg_t)thunk_fault_entry(cpu->vm);
	g[REG_RSP] = (greg_t)cpu->host_rsp;
	g[REG_EFL] &= ~(greg_t)(FLAG_DF | FLAG_TF | FLAG_AC);
}

void wake_cpu(struct cpu *cpu)
{
	ask_to_exit(cpu);
	atomic_fetch_add(&cpu->wake, 1);
	futex_wake(&cpu->wake, 1);
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
	struct cpu *cpu = info->si_value.sival_ptr;

	(void)sig;
	(void)context;
	atomic_store(&cpu->timer_fired, true);
	wake_cpu(cpu);
}

void install_handlers(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	(void)sigfillset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		(void)sigaction(faults[i], &sa, &previous[faults[i]]);
	sa.sa_sigaction = on_timer;
	sa.sa_flags |= SA_RESTART;
	(void)sigaction(TIMER_SIGNAL, &sa, &previous[TIMER_SIGNAL]);
	(void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);	/* for claim_page() */
}

/* Once per vCPU thread. */
static int enter_thread(struct dbt_vcpu *dv, struct err *err)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL };
	sigset_t block;

	current_cpu = dv->cpu;
	if (dv->entered)
		return 0;
	(void)sigfillset(&block);
	(void)sigdelset(&block, SIGSEGV);
	(void)sigdelset(&block, SIGBUS);
	(void)sigdelset(&block, SIGFPE);
	(void)sigdelset(&block, SIGILL);
	(void)sigdelset(&block, SIGTRAP);
	(void)sigdelset(&block, TIMER_SIGNAL);
	(void)pthread_sigmask(SIG_SETMASK, &block, NULL);
	ev.sigev_value.sival_ptr = dv->cpu;
	ev._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &ev, &dv->timer) < 0)
		return err_set(err, -errno, "cannot create a timer: %s", strerror(errno));
	dv->has_timer = true;
	dv->cpu->timer_id = (int)(intptr_t)dv->timer;
	dv->entered = true;
	dv->cpu->timer_ready = true;
	dbt_timer_set(dv->cpu, dv->cpu->timer_tsc);
	return 0;
}

/* ----------------------------------------------------------------- running */

#define HALT_POLL_NS 50000u
#define REST_MS 1000u

/* A guest whose processes have done nothing for a while gives back what they fill again sooner than anybody notices. */
static void rest(struct cpu *cpu)
{
	uint64_t now = __builtin_ia32_rdtsc();

	if (cpu->rest.age != cpu->ctx_age) {
		cpu->rest.age = cpu->ctx_age;
		cpu->rest.since = now;
		cpu->rest.done = false;
	} else if (!cpu->rest.done && now - cpu->rest.since > (uint64_t)REST_MS * cpu->vm->tsc_khz) {
		mmu_give_back(cpu);
		cpu->rest.done = true;
	}
}

/*
 * Sleeps until cpu->wake is no longer @seen.  An answer to what the guest just
 * asked a device for is often microseconds away, so it looks for a while first;
 * after polls in vain for ever shorter, so that an idle guest costs nothing.  Linux likes
 * to run the device's thread, which was just woken, on this very processor: between looks
 * that one has its turn.
 */
static void sleep_halted(struct cpu *cpu, uint32_t seen)
{
	/* A little later than rest() asks for. */
	static const struct timespec until_rest = { .tv_sec = (REST_MS + 50) / 1000, .tv_nsec = (REST_MS + 50) % 1000 * 1000000 };
	uint64_t ticks = (uint64_t)cpu->halt_poll_ns * cpu->vm->tsc_khz / 1000000, start = __builtin_ia32_rdtsc();

	while (__builtin_ia32_rdtsc() - start < ticks) {
		if (atomic_load_explicit(&cpu->wake, memory_order_acquire) != seen) {
			cpu->halt_poll_ns = HALT_POLL_NS;
			return;
		}
		(void)raw_syscall4(SYS_sched_yield, 0, 0, 0, 0);
	}
	rest(cpu);
	start = __builtin_ia32_rdtsc();
	futex_wait(&cpu->wake, seen, cpu->rest.done ? NULL : &until_rest);	/* the guest itself may sleep for a minute */
	if (__builtin_ia32_rdtsc() - start < HALT_POLL_NS * (uint64_t)cpu->vm->tsc_khz / 1000000)
		cpu->halt_poll_ns = HALT_POLL_NS;	/* would have paid */
	else
		cpu->halt_poll_ns /= 2;
}

/* Waits for an interrupt, a kick or a request. */
static void wait_halted(struct cpu *cpu)
{
	for (;;) {
		uint32_t seen = atomic_load(&cpu->wake);

		if (atomic_exchange(&cpu->timer_fired, false))
			irqchip_timer_expired(cpu->vm->irqchip, cpu->index);
		if ((cpu->intr_enabled && irqchip_pending(cpu->vm->irqchip, cpu->index)) ||
		    (!cpu->nmi_masked && irqchip_nmi_pending(cpu->vm->irqchip, cpu->index)) ||
		    atomic_load(&cpu->kicked) || atomic_load(&cpu->vm->stop_wanted) ||
		    atomic_load(&cpu->vm->vm->request) != VM_REQUEST_NONE)
			break;
		sleep_halted(cpu, seen);
	}
	ask_to_exit(cpu);
}

static void wait_while_stopped(struct dbt_vm *vm)
{
	uint32_t seen;

	while ((seen = atomic_load(&vm->stop_wanted)) != 0)
		futex_wait(&vm->stop_wanted, seen, NULL);
}

/* Empties the code cache while every other vCPU is outside translated code. */
static void flush_code(struct cpu *cpu)
{
	struct dbt_vm *vm = cpu->vm;
	uint32_t nobody = 0;

	if (!atomic_compare_exchange_strong(&vm->stop_wanted, &nobody, 1)) {	/* somebody else is at it */
		wait_while_stopped(vm);
		return;
	}
	for (unsigned i = 0; i < vm->ncpus; i++) {
		if (vm->cpu[i] == cpu || !vm->cpu[i])
			continue;
		wake_cpu(vm->cpu[i]);
		while (atomic_load(&vm->cpu[i]->inside))
			(void)sched_yield();
	}
	if (code_cache_full(vm->cc)) {
		code_cache_reset(vm->cc);
		for (unsigned i = 0; i < vm->ncpus; i++)
			if (vm->cpu[i])
				mmu_init(vm->cpu[i]);
	}
	atomic_store(&vm->stop_wanted, 0);
	futex_wake(&vm->stop_wanted, VCPUS_MAX);
}

static void run_guest(struct cpu *cpu)
{
	uint64_t code;

	cpu->leave = LEAVE_NONE;
	atomic_store(&cpu->inside, 1);
	if (atomic_load(&cpu->vm->stop_wanted)) {
		cpu->leave = LEAVE_STOP;
	} else {
		code = dispatch(cpu);
		cpu->vectors_live = true;
		if (code)
			(void)cpu->vm->enter(cpu, code);
		cpu->vectors_live = false;
	}
	atomic_store(&cpu->inside, 0);
}

static enum vcpu_exit requested(const struct vm *vm)
{
	return atomic_load(&vm->request) == VM_REQUEST_RESET ? VCPU_EXIT_RESET : VCPU_EXIT_POWEROFF;
}

static void log_shutdown(const struct cpu *cpu)
{
	for (unsigned i = 0; i < cpu->nchain; i++)
		log_msg(LOG_LEVEL_WARN, "dbt",
			"vCPU %u: exception %u (error 0x%x) at 0x%llx, ring %u, rsp 0x%llx, cr2 0x%llx", cpu->index,
			cpu->chain[i].vector, cpu->chain[i].error, (unsigned long long)cpu->chain[i].rip,
			cpu->chain[i].cpl, (unsigned long long)cpu->chain[i].rsp,
			(unsigned long long)cpu->chain[i].cr2);
}

static enum vcpu_exit run_until_exit(struct vcpu *vcpu, struct cpu *cpu, struct err *err)
{
	char at[64];

	for (;;) {
		if (atomic_exchange(&cpu->kicked, false))
			return VCPU_EXIT_KICKED;
		if (atomic_load(&cpu->vm->stop_wanted))
			wait_while_stopped(cpu->vm);
		if (cpu->wait_for_sipi || cpu->halted) {
			wait_halted(cpu);
			if (cpu->wait_for_sipi)
				continue;
			if (atomic_load(&cpu->kicked))
				continue;
		}
		run_guest(cpu);
		switch ((enum leave)cpu->leave) {
		case LEAVE_REQUEST:
			return requested(vcpu->vm);
		case LEAVE_SHUTDOWN:
			log_shutdown(cpu);
			return VCPU_EXIT_SHUTDOWN;
		case LEAVE_ERROR:
			(void)snprintf(at, sizeof(at), " (at guest address 0x%llx)", (unsigned long long)cpu->rip);
			(void)err_set(err, -EIO, "vCPU %u: %s%s", cpu->index, cpu->fatal, at);
			return VCPU_EXIT_ERROR;
		case LEAVE_FLUSH:
			flush_code(cpu);
			break;
		case LEAVE_DEBUG:
			vcpu->stop = cpu->debug.stop;
			return VCPU_EXIT_DEBUG;
		case LEAVE_NONE:
		case LEAVE_KICKED:
		case LEAVE_HALT:
		case LEAVE_STOP:
			break;
		}
	}
}

enum vcpu_exit dbt_vcpu_run(struct vcpu *vcpu, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	stack_t stack = { .ss_sp = dv->alt_stack, .ss_size = ALT_STACK_BYTES,
			  .ss_flags = (int)(1u << 31) /* SS_AUTODISARM: RSP may point anywhere, even into it */ };
	stack_t before;
	enum vcpu_exit exit;

	if (enter_thread(dv, err) < 0)
		return VCPU_EXIT_ERROR;
	if (sigaltstack(&stack, &before) < 0) {
		(void)err_set(err, -errno, "cannot set the signal stack: %s", strerror(errno));
		return VCPU_EXIT_ERROR;
	}
	exit = run_until_exit(vcpu, dv->cpu, err);
	(void)sigaltstack(&before, NULL);
	return exit;
}

void dbt_vcpu_kick(struct vcpu *vcpu)
{
	struct dbt_vcpu *dv = vcpu->engine_data;

	atomic_store(&dv->cpu->kicked, true);
	wake_cpu(dv->cpu);
}
