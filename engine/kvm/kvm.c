/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvm/kvm.h"

#include "base/checked.h"
#include "engine/kvm/internal.h"
#include "os/err.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KICK_SIGNAL SIGRTMIN

/* Three pages and one that KVM keeps for itself on Intel hosts, away from all else. */
#define TSS_ADDR 0xfffbd000ul
#define IDENTITY_MAP_ADDR 0xfffbc000ull

static int open_kvm(struct err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int r;

	if (fd >= 0) {
		r = ioctl(fd, KVM_GET_API_VERSION, 0);
		if (r == KVM_API_VERSION)
			return fd;
		(void)close(fd);
		return err_set(err, -ENOTSUP, "/dev/kvm speaks version %d, not %d", r,
			       KVM_API_VERSION);
	}
	r = -errno;
	if (r == -ENOENT)
		return err_set(err, r, "there is no /dev/kvm: the host has no hardware virtualization, or its kernel module is not loaded");
	if (r == -EACCES)
		return err_set(err, r, "no permission for /dev/kvm: add your user to its group (usually kvm)");
	return err_set(err, r, "cannot open /dev/kvm: %s", strerror(-r));
}

static int check_capabilities(int kvm, struct err *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{ KVM_CAP_USER_MEMORY, "user memory" }, { KVM_CAP_IRQCHIP, "in-kernel irqchip" },
		{ KVM_CAP_IRQ_ROUTING, "interrupt routing" }, { KVM_CAP_IOEVENTFD, "ioeventfd" },
		{ KVM_CAP_SIGNAL_MSI, "message-signalled interrupts" }, { KVM_CAP_XSAVE, "XSAVE" },
		{ KVM_CAP_XCRS, "XCR0" }, { KVM_CAP_VCPU_EVENTS, "vCPU events" },
		{ KVM_CAP_DEBUGREGS, "debug registers" }, { KVM_CAP_ADJUST_CLOCK, "KVM clock" },
		{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(kvm, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return err_set(err, -ENOTSUP, "this host's KVM is too old: no %s",
				       needed[i].name);
	return 0;
}

/* --- CPUID: what KVM cannot do goes --- */

static struct kvm_cpuid2 *supported_cpuid(int kvm)
{
	const unsigned max = 256;
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + max * sizeof(c->entries[0]));

	if (!c)
		return NULL;
	c->nent = max;
	if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		free(c);
		return NULL;
	}
	return c;
}

static const struct kvm_cpuid_entry2 *find_supported(const struct kvm_cpuid2 *c, uint32_t leaf,
						     uint32_t subleaf)
{
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == subleaf)
			return &c->entries[i];
	return NULL;
}

static void mask_register(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf,
			  enum cpuid_reg reg, uint32_t supported)
{
	cpuid_clear(t, leaf, subleaf, reg, ~supported);
}

/* CPUID.1:ECX bits that are ours to give: x2APIC, TSC deadline, hypervisor. */
#define ECX1_OURS (1u << 21 | 1u << 24 | 1u << 31)

static int mask_cpuid(int kvm, struct cpuid_table *t, struct err *err)
{
	struct kvm_cpuid2 *c = supported_cpuid(kvm);
	const struct kvm_cpuid_entry2 *e;

	if (!c)
		return err_set(err, -ENOTSUP, "KVM does not tell which CPU features it supports");
	e = find_supported(c, 1, 0);
	mask_register(t, 1, 0, CPUID_ECX, (e ? e->ecx : 0) | ECX1_OURS);
	mask_register(t, 1, 0, CPUID_EDX, (e ? e->edx : 0) | 1u << 28);	/* HTT: several cores */
	e = find_supported(c, 7, 0);
	mask_register(t, 7, 0, CPUID_EBX, e ? e->ebx : 0);
	mask_register(t, 7, 0, CPUID_ECX, e ? e->ecx : 0);
	mask_register(t, 7, 0, CPUID_EDX, e ? e->edx : 0);
	e = find_supported(c, 7, 1);
	mask_register(t, 7, 1, CPUID_EAX, e ? e->eax : 0);
	e = find_supported(c, 0xd, 0);
	cpuid_clear_xstate(t, ~(e ? e->eax : 0ull));
	e = find_supported(c, 0xd, 1);
	mask_register(t, 0xd, 1, CPUID_EAX, e ? e->eax : 0);
	e = find_supported(c, 0x40000001, 0);
	mask_register(t, 0x40000001, 0, CPUID_EAX, e ? e->eax : 0);
	e = find_supported(c, 0x80000001, 0);
	mask_register(t, 0x80000001, 0, CPUID_ECX, e ? e->ecx : 0);
	mask_register(t, 0x80000001, 0, CPUID_EDX, e ? e->edx : 0);
	e = find_supported(c, 0x80000008, 0);
	mask_register(t, 0x80000008, 0, CPUID_EBX, e ? e->ebx : 0);
	free(c);
	return 0;
}

static int set_cpuid(const struct vcpu *vcpu, const struct kvm_vcpu *kv)
{
	const struct cpuid_table *t = &vcpu->vm->cpuid;
	const struct cpuid_dynamic dynamic = { .apic_id = vcpu->index, .xcr0 = 1 };
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + t->nentries * sizeof(c->entries[0]));
	int r;

	if (!c)
		return -ENOMEM;
	c->nent = t->nentries;
	for (unsigned i = 0; i < t->nentries; i++) {
		const struct cpuid_entry *e = &t->entry[i];
		uint32_t reg[4];

		cpuid_query(t, &dynamic, e->leaf, e->subleaf, reg);
		c->entries[i] = (struct kvm_cpuid_entry2){
			.function = e->leaf, .index = e->subleaf,
			.flags = e->has_subleafs ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = reg[CPUID_EAX], .ebx = reg[CPUID_EBX], .ecx = reg[CPUID_ECX],
			.edx = reg[CPUID_EDX] };
	}
	r = ioctl(kv->fd, KVM_SET_CPUID2, c) < 0 ? -errno : 0;
	free(c);
	return r;
}

/* --- VM --- */

int kvm_set_bank(const struct vm *vm, unsigned slot, bool log_dirty)
{
	const struct kvm_vm *kvm = vm->engine_data;
	const struct mem_bank *b = &vm->mem->bank[slot];
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = b->base,
		.memory_size = b->size,
		.userspace_addr = (uintptr_t)b->host,
	};

	return ioctl(kvm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

/* Line n is IOAPIC input n and nothing else: KVM's default also feeds an 8259 pair. */
static int route_interrupts(int fd)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[IOAPIC_PINS];
	} r = { .head.nr = IOAPIC_PINS };

	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		r.entry[i] = (struct kvm_irq_routing_entry){
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = i } };
	return ioctl(fd, KVM_SET_GSI_ROUTING, &r) < 0 ? -errno : 0;
}

static int set_up_vm(struct vm *vm, struct kvm_vm *kvm, struct err *err)
{
	uint64_t identity_map = IDENTITY_MAP_ADDR;
	int r;

	if (ioctl(kvm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
	    ioctl(kvm->fd, KVM_SET_TSS_ADDR, TSS_ADDR) < 0 ||
	    ioctl(kvm->fd, KVM_CREATE_IRQCHIP, 0) < 0) {
		r = -errno;
		return err_set(err, r, "KVM cannot create interrupt controllers: %s", strerror(-r));
	}
	r = route_interrupts(kvm->fd);
	if (r < 0)
		return err_set(err, r, "KVM cannot route interrupts: %s", strerror(-r));
	for (unsigned i = 0; i < vm->mem->nbanks; i++) {
		r = kvm_set_bank(vm, i, false);
		if (r < 0)
			return err_set(err, r, "KVM does not take guest memory: %s", strerror(-r));
	}
	return 0;
}

static void vm_destroy_kvm(struct vm *vm)
{
	struct kvm_vm *kvm = vm->engine_data;

	if (kvm->host_dirty)
		(void)kvm_dirty_log_set(vm, false, NULL);
	(void)close(kvm->fd);
	free(kvm);
	vm->engine_data = NULL;
}

static int vm_create_kvm(struct vm *vm, struct err *err)
{
	struct kvm_vm *kvm;
	int fd = open_kvm(err), r;

	if (fd < 0)
		return fd;
	kvm = calloc(1, sizeof(*kvm));
	if (!kvm) {
		(void)close(fd);
		return err_set(err, -ENOMEM, "out of host memory");
	}
	kvm->fd = -1;
	r = check_capabilities(fd, err);
	if (r == 0)
		r = mask_cpuid(fd, &vm->cpuid, err);
	if (r == 0) {
		kvm->run_size = (size_t)ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
		do
			kvm->fd = ioctl(fd, KVM_CREATE_VM, 0);
		while (kvm->fd < 0 && errno == EINTR);
		if (kvm->fd < 0) {
			r = -errno;
			err_set(err, r, "KVM cannot create a machine: %s", strerror(-r));
		}
	}
	(void)close(fd);
	vm->engine_data = kvm;
	if (r == 0)
		r = set_up_vm(vm, kvm, err);
	if (r < 0)
		vm_destroy_kvm(vm);
	return r;
}

/* --- vCPU --- */

/* Only KICK_SIGNAL, and only inside KVM_RUN, gets through. */
static int set_run_mask(int fd)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t sigset[8];	/* the kernel's sigset_t: 64 bits */
	} m = { .head.len = 8 };
	sigset_t mask;

	(void)pthread_sigmask(SIG_BLOCK, NULL, &mask);
	(void)sigdelset(&mask, KICK_SIGNAL);
	memcpy(m.sigset, &mask, sizeof(m.sigset));
	return ioctl(fd, KVM_SET_SIGNAL_MASK, &m) < 0 ? -errno : 0;
}

static void vcpu_destroy_kvm(struct vcpu *vcpu)
{
	struct kvm_vcpu *kv = vcpu->engine_data;
	const struct kvm_vm *kvm = vcpu->vm->engine_data;

	if (kv->run)
		(void)munmap(kv->run, kvm->run_size);
	if (kv->fd >= 0)
		(void)close(kv->fd);
	pthread_mutex_destroy(&kv->lock);
	free(kv);
	vcpu->engine_data = NULL;
}

static int vcpu_create_kvm(struct vcpu *vcpu, struct err *err)
{
	const struct kvm_vm *kvm = vcpu->vm->engine_data;
	struct kvm_vcpu *kv = calloc(1, sizeof(*kv));
	void *run;
	int r;

	if (!kv)
		return err_set(err, -ENOMEM, "out of host memory");
	pthread_mutex_init(&kv->lock, NULL);
	vcpu->engine_data = kv;
	kv->fd = ioctl(kvm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (kv->fd < 0)
		goto fail;
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, kv->fd, 0);
	if (run == MAP_FAILED)
		goto fail;
	kv->run = run;
	r = set_cpuid(vcpu, kv);
	if (r < 0) {
		errno = -r;
		goto fail;
	}
	return 0;

fail:
	r = -errno;
	vcpu_destroy_kvm(vcpu);
	return err_set(err, r, "KVM cannot create vCPU %u: %s", vcpu->index, strerror(-r));
}

/* --- Running --- */

static void do_port_io(struct vcpu *vcpu, const struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)(uintptr_t)run + run->io.data_offset;
	unsigned size = run->io.size;
	uint64_t value;

	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_IN) {
			(void)bus_read(&vcpu->vm->pio, run->io.port, size, &value);
			memcpy(data, &value, size);
		} else {
			value = 0;
			memcpy(&value, data, size);
			(void)bus_write(&vcpu->vm->pio, run->io.port, size, value);
		}
	}
}

static void do_mmio(struct vcpu *vcpu, struct kvm_run *run)
{
	uint64_t value = 0;

	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, run->mmio.len);
		(void)bus_write(&vcpu->vm->mmio, run->mmio.phys_addr, run->mmio.len, value);
	} else {
		(void)bus_read(&vcpu->vm->mmio, run->mmio.phys_addr, run->mmio.len, &value);
		memcpy(run->mmio.data, &value, run->mmio.len);
	}
}

static enum vcpu_exit explain_internal_error(const struct vcpu *vcpu, const struct kvm_run *run,
					     struct err *err)
{
	const struct kvm_vcpu *kv = vcpu->engine_data;
	struct kvm_regs regs = { 0 };
	char bytes[3 * 15 + 1] = "";
	unsigned n = 0;

	(void)ioctl(kv->fd, KVM_GET_REGS, &regs);
	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
		err_set(err, -EIO, "vCPU %u: KVM internal error %u at rip 0x%llx", vcpu->index,
			run->internal.suberror, (unsigned long long)regs.rip);
		return VCPU_EXIT_ERROR;
	}
	if (run->emulation_failure.ndata >= 3 &&
	    (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
		n = run->emulation_failure.insn_size;
	for (unsigned i = 0; i < n && i < 15; i++)
		(void)snprintf(bytes + 3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
	err_set(err, -EIO,
		"vCPU %u: this host's KVM cannot emulate the instruction%s at rip 0x%llx; use --engine dbt",
		vcpu->index, bytes, (unsigned long long)regs.rip);
	return VCPU_EXIT_ERROR;
}

#define VECTOR_BP 3u
#define DR6_BREAKPOINTS 15u

/* A data breakpoint and an instruction breakpoint differ by the R/W field of DR7. */
static void note_stop(struct vcpu *vcpu, const struct kvm_run *run)
{
	const struct kvm_debug_exit_arch *d = &run->debug.arch;
	unsigned hit = (unsigned)d->dr6 & DR6_BREAKPOINTS, index;

	if (d->exception == VECTOR_BP) {
		vcpu->stop = (struct vcpu_stop){ .kind = VCPU_STOP_INT3 };
	} else if (hit) {
		index = (unsigned)__builtin_ctz(hit);
		vcpu->stop = (struct vcpu_stop){ .kind = d->dr7 >> (16 + 4 * index) & 3 ? VCPU_STOP_WATCHPOINT
								: VCPU_STOP_BREAKPOINT, .index = index };
	} else {
		vcpu->stop = (struct vcpu_stop){ .kind = VCPU_STOP_STEP };
	}
}

static int debug_kvm(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err)
{
	struct kvm_vcpu *kv = vcpu->engine_data;
	struct kvm_guest_debug g = { .control = 0 };
	int r;

	if (debug->int3)
		g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
	if (debug->inject_int3)
		g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP;
	if (debug->single_step)
		g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
	if (debug->dr7) {
		g.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
		memcpy(g.arch.debugreg, debug->dr, sizeof(debug->dr));
		g.arch.debugreg[7] = debug->dr7;
	}
	r = ioctl(kv->fd, KVM_SET_GUEST_DEBUG, &g) < 0 ? -errno : 0;
	if (r == -EINVAL && debug->single_step) {	/* before Linux 5.14 interrupts cannot be made to wait */
		g.control &= ~KVM_GUESTDBG_BLOCKIRQ;
		r = ioctl(kv->fd, KVM_SET_GUEST_DEBUG, &g) < 0 ? -errno : 0;
	}
	return r < 0 ? err_set(err, r, "vCPU %u: KVM cannot debug it: %s", vcpu->index, strerror(-r)) : 0;
}

/* Handles one exit.  Returns true when vcpu_run() has to return *@ret. */
static bool handle_exit(struct vcpu *vcpu, struct kvm_run *run, enum vcpu_exit *ret,
			struct err *err)
{
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		do_port_io(vcpu, run);
		return false;
	case KVM_EXIT_MMIO:
		do_mmio(vcpu, run);
		return false;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return false;
	case KVM_EXIT_SHUTDOWN:
		*ret = VCPU_EXIT_SHUTDOWN;
		return true;
	case KVM_EXIT_INTERNAL_ERROR:
		*ret = explain_internal_error(vcpu, run, err);
		return true;
	case KVM_EXIT_FAIL_ENTRY:
		err_set(err, -EIO, "vCPU %u: the processor refused the guest's state (reason 0x%llx)",
			vcpu->index,
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		*ret = VCPU_EXIT_ERROR;
		return true;
	case KVM_EXIT_DEBUG:
		note_stop(vcpu, run);
		*ret = VCPU_EXIT_DEBUG;
		return true;
	default:
		err_set(err, -EIO, "vCPU %u: KVM stopped for an unknown reason (%u)", vcpu->index,
			run->exit_reason);
		*ret = VCPU_EXIT_ERROR;
		return true;
	}
}

static void drain_kicks(void)
{
	const struct timespec now = { 0 };
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, KICK_SIGNAL);
	while (sigtimedwait(&set, NULL, &now) == KICK_SIGNAL)
		;
}

/*
 * A kick sets immediate_exit, so KVM_RUN after it only finishes the port or MMIO
 * access in flight and returns EINTR: the state is then between two instructions.
 */
static enum vcpu_exit run_until_exit(struct vcpu *vcpu, struct kvm_vcpu *kv, struct err *err)
{
	enum vcpu_exit ret = VCPU_EXIT_ERROR;

	for (;;) {
		if (ioctl(kv->fd, KVM_RUN, 0) == 0) {
			if (handle_exit(vcpu, kv->run, &ret, err))
				return ret;
			continue;
		}
		if (errno != EINTR && errno != EAGAIN) {
			err_set(err, -errno, "vCPU %u: KVM cannot run it: %s", vcpu->index,
				strerror(errno));
			return VCPU_EXIT_ERROR;
		}
		if (atomic_exchange(&kv->kicked, false)) {
			__atomic_store_n(&kv->run->immediate_exit, 0, __ATOMIC_RELEASE);
			return VCPU_EXIT_KICKED;
		}
		drain_kicks();
	}
}

static enum vcpu_exit vcpu_run_kvm(struct vcpu *vcpu, struct err *err)
{
	struct kvm_vcpu *kv = vcpu->engine_data;
	sigset_t block, before;
	enum vcpu_exit ret;
	int r;

	(void)sigemptyset(&block);
	(void)sigaddset(&block, KICK_SIGNAL);
	(void)pthread_sigmask(SIG_BLOCK, &block, &before);
	r = set_run_mask(kv->fd);
	if (r < 0) {
		(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
		err_set(err, r, "KVM refuses a signal mask: %s", strerror(-r));
		return VCPU_EXIT_ERROR;
	}
	pthread_mutex_lock(&kv->lock);
	kv->tid = (pid_t)syscall(SYS_gettid);
	pthread_mutex_unlock(&kv->lock);

	ret = run_until_exit(vcpu, kv, err);

	pthread_mutex_lock(&kv->lock);
	kv->tid = 0;
	pthread_mutex_unlock(&kv->lock);
	drain_kicks();	/* one that is still pending must not outlive the block */
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return ret;
}

static void vcpu_kick_kvm(struct vcpu *vcpu)
{
	struct kvm_vcpu *kv = vcpu->engine_data;

	atomic_store(&kv->kicked, true);
	__atomic_store_n(&kv->run->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_mutex_lock(&kv->lock);
	if (kv->tid)
		(void)syscall(SYS_tgkill, getpid(), kv->tid, KICK_SIGNAL);
	pthread_mutex_unlock(&kv->lock);
}

/* --- Interrupts and doorbells --- */

static void irq_set_kvm(struct vm *vm, unsigned gsi, bool level)
{
	const struct kvm_vm *kvm = vm->engine_data;
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	/* Fails only for a line that does not exist. */
	(void)ioctl(kvm->fd, KVM_IRQ_LINE, &irq);
}

static void msi_send_kvm(struct vm *vm, uint64_t addr, uint32_t data)
{
	const struct kvm_vm *kvm = vm->engine_data;
	struct kvm_msi msi = { .address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32),
			       .data = data };

	(void)ioctl(kvm->fd, KVM_SIGNAL_MSI, &msi);	/* 0 when the guest masked it */
}

static int doorbell_add_kvm(struct vm *vm, bool is_mmio, unsigned index, struct err *err)
{
	const struct kvm_vm *kvm = vm->engine_data;
	const struct bus_doorbell *d = &(is_mmio ? &vm->mmio : &vm->pio)->doorbell[index];
	struct kvm_ioeventfd e = {
		.datamatch = d->value,
		.addr = d->addr,
		.len = d->size,
		.fd = d->fd,
		.flags = (is_mmio ? 0u : KVM_IOEVENTFD_FLAG_PIO) |
			 (d->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u),
	};

	if (ioctl(kvm->fd, KVM_IOEVENTFD, &e) < 0) {
		int r = -errno;

		return err_set(err, r, "KVM does not take the doorbell at 0x%llx: %s",
			       (unsigned long long)d->addr, strerror(-r));
	}
	return 0;
}

const struct engine_ops kvm_engine = {
	.name = "kvm",
	.probe = kvm_probe,
	.vm_create = vm_create_kvm,
	.vm_destroy = vm_destroy_kvm,
	.vcpu_create = vcpu_create_kvm,
	.vcpu_destroy = vcpu_destroy_kvm,
	.vcpu_run = vcpu_run_kvm,
	.vcpu_kick = vcpu_kick_kvm,
	.get_state = kvm_get_state,
	.set_state = kvm_set_state,
	.debug = debug_kvm,
	.get_vm_state = kvm_get_vm_state,
	.set_vm_state = kvm_set_vm_state,
	.irq_set = irq_set_kvm,
	.msi_send = msi_send_kvm,
	.doorbell_add = doorbell_add_kvm,
	.dirty_log_set = kvm_dirty_log_set,
	.dirty_log_get = kvm_dirty_log_get,
};
