/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vCPU threads: each runs its vCPU until the machine ends, is stopped or paused.
 * All three reach a thread the same way: a flag is set, then the vCPU is kicked;
 * kicks are sticky, so a flag set between the check and vcpu_run() is not lost.
 */
#include "vmm/vm.h"

#include "os/err.h"
#include "vmm/tsc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void kick_all(struct vm *vm)
{
	for (unsigned i = 0; i < vm->nvcpus; i++)
		vm->engine->vcpu_kick(&vm->vcpu[i]);
}

static void describe_end(struct vm_end *end, const struct err *err)
{
	switch (end->exit) {
	case VCPU_EXIT_SHUTDOWN:
		(void)snprintf(end->reason, sizeof(end->reason),
			       "vCPU %u: triple fault: the guest could not handle an exception",
			       end->vcpu);
		break;
	case VCPU_EXIT_ERROR:
		(void)snprintf(end->reason, sizeof(end->reason), "%s", err->msg);
		break;
	case VCPU_EXIT_KICKED:
	case VCPU_EXIT_DEBUG:
	case VCPU_EXIT_RESET:
	case VCPU_EXIT_POWEROFF:
		break;
	}
}

/* The guest stopped by itself: tell the owner once, stop the other vCPUs. */
static void end_machine(struct vcpu *vcpu, enum vcpu_exit exit, const struct err *err)
{
	struct vm_end end = { .exit = exit, .vcpu = vcpu->index };
	struct vm *vm = vcpu->vm;

	if (atomic_exchange(&vm->ended_called, true))
		return;
	describe_end(&end, err);
	atomic_store(&vm->stopping, true);
	pthread_mutex_lock(&vm->lock);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	kick_all(vm);
	if (vm->ended)
		vm->ended(vm->ended_ctx, &end);
}

static bool must_park(struct vcpu *vcpu)
{
	return atomic_load(&vcpu->vm->paused) || atomic_load(&vcpu->held);
}

static void park(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	pthread_mutex_lock(&vm->lock);
	vm->parked++;
	pthread_cond_broadcast(&vm->changed);
	while (must_park(vcpu) && !atomic_load(&vm->stopping))
		pthread_cond_wait(&vm->changed, &vm->lock);
	vm->parked--;
	pthread_mutex_unlock(&vm->lock);
}

static int take_start(struct vcpu *vcpu, struct err *err)
{
	struct vcpu_state *start = atomic_exchange(&vcpu->start, NULL);
	int r = 0;

	if (start)
		r = vcpu->vm->engine->set_state(vcpu, start, err);
	free(start);
	return r;
}

int vm_settle(struct vm *vm, struct err *err)
{
	int r = atomic_load(&vm->request) == VM_REQUEST_NONE ? 0 : err_set(err, -ESHUTDOWN, "the guest is about to end");

	for (unsigned i = 0; i < vm->nvcpus && r == 0; i++)
		r = take_start(&vm->vcpu[i], err);
	return r;
}

static enum vcpu_exit run_once(struct vcpu *vcpu, struct err *err)
{
	struct vm *vm = vcpu->vm;

	if (must_park(vcpu))
		park(vcpu);
	switch ((enum vm_request)atomic_load(&vm->request)) {
	case VM_REQUEST_RESET:
		return VCPU_EXIT_RESET;
	case VM_REQUEST_POWEROFF:
		return VCPU_EXIT_POWEROFF;
	case VM_REQUEST_NONE:
		break;
	}
	if (atomic_load(&vm->stopping))
		return VCPU_EXIT_KICKED;
	if (take_start(vcpu, err) < 0)
		return VCPU_EXIT_ERROR;
	return vm->engine->vcpu_run(vcpu, err);
}

/* All vCPUs are to stop, this one included, before anybody is told. */
static void tell_debugger(struct vcpu *vcpu)
{
	struct vm *vm = vcpu->vm;

	atomic_fetch_add(&vm->paused, 1);
	kick_all(vm);
	vm->debug(vm->debug_ctx, vcpu);
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct vm *vm = vcpu->vm;
	struct err err = { 0 };
	enum vcpu_exit exit = VCPU_EXIT_KICKED;
	char name[16];

	(void)snprintf(name, sizeof(name), "vcpu%u", vcpu->index);
	(void)pthread_setname_np(pthread_self(), name);
	if (vm->thread_starts && vm->thread_starts(vm->thread_ctx) < 0) {
		(void)err_set(&err, -EPERM, "the jail of vCPU %u cannot be closed", vcpu->index);
		end_machine(vcpu, VCPU_EXIT_ERROR, &err);
	}
	while (!atomic_load(&vm->stopping)) {
		exit = run_once(vcpu, &err);
		if (exit == VCPU_EXIT_DEBUG) {
			tell_debugger(vcpu);
		} else if (exit != VCPU_EXIT_KICKED) {
			end_machine(vcpu, exit, &err);
			break;
		}
	}
	pthread_mutex_lock(&vm->lock);
	vm->live--;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	return NULL;
}

/* The guest goes on seeing the processor that it has seen, if it is one that this VM can be. */
static int take_cpuid(struct vm *vm, const struct cpuid_table *cpuid, struct err *err)
{
	char missing[160];

	if (!cpuid_offers(&vm->cpuid, cpuid, missing, sizeof(missing)))
		return err_set(err, -ENOTSUP, "the guest was saved on a processor with features that engine %s does not have here: %s",
			       vm->engine->name, missing);
	cpuid_take(&vm->cpuid, cpuid);
	return 0;
}

int vm_create(const struct engine_ops *engine, struct mem *mem, unsigned nvcpus, struct vm **ret_vm, struct err *err)
{
	return vm_create_as(engine, mem, nvcpus, NULL, ret_vm, err);
}

int vm_create_as(const struct engine_ops *engine, struct mem *mem, unsigned nvcpus, const struct cpuid_table *cpuid,
		 struct vm **ret_vm, struct err *err)
{
	unsigned created = 0;
	struct vm *vm;
	int r;

	if (nvcpus == 0 || nvcpus > VCPUS_MAX)
		return err_set(err, -EINVAL, "a machine has 1 to %d vCPUs, not %u", VCPUS_MAX,
			       nvcpus);
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return err_set(err, -ENOMEM, "out of host memory");
	vm->engine = engine;
	vm->mem = mem;
	vm->tsc_khz = host_tsc_khz();
	cpuid_fill_from_host(&vm->cpuid, nvcpus, vm->tsc_khz);
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);
	vm->nvcpus = nvcpus;
	for (unsigned i = 0; i < nvcpus; i++) {
		vm->vcpu[i].vm = vm;
		vm->vcpu[i].index = i;
	}
	r = engine->vm_create(vm, err);
	if (r < 0)
		goto fail;
	r = cpuid ? take_cpuid(vm, cpuid, err) : 0;
	if (r < 0)
		goto fail_vcpus;
	for (; created < nvcpus; created++) {
		r = engine->vcpu_create(&vm->vcpu[created], err);
		if (r < 0)
			goto fail_vcpus;
	}
	*ret_vm = vm;
	return 0;

fail_vcpus:
	while (created > 0)
		engine->vcpu_destroy(&vm->vcpu[--created]);
	engine->vm_destroy(vm);
fail:
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
	return r;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	vm_stop(vm);
	for (unsigned i = vm->nvcpus; i-- > 0;) {
		vm->engine->vcpu_destroy(&vm->vcpu[i]);
		free(atomic_load(&vm->vcpu[i].start));
	}
	vm->engine->vm_destroy(vm);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

int vm_start(struct vm *vm, struct err *err)
{
	for (unsigned i = 0; i < vm->nvcpus; i++) {
		struct vcpu *vcpu = &vm->vcpu[i];
		int r;

		pthread_mutex_lock(&vm->lock);
		vm->live++;
		pthread_mutex_unlock(&vm->lock);
		r = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
		if (r) {
			pthread_mutex_lock(&vm->lock);
			vm->live--;
			pthread_mutex_unlock(&vm->lock);
			vm_stop(vm);
			return err_set(err, -r, "cannot start the thread of vCPU %u: %s", i,
				       strerror(r));
		}
		vcpu->has_thread = true;
	}
	return 0;
}

int vm_start_vcpu(struct vm *vm, unsigned index, const struct vcpu_state *state)
{
	struct vcpu_state *copy, *none = NULL;

	if (index >= vm->nvcpus)
		return -EINVAL;
	copy = malloc(sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, state, sizeof(*copy));
	if (!atomic_compare_exchange_strong(&vm->vcpu[index].start, &none, copy)) {
		free(copy);
		return -EBUSY;
	}
	vm->engine->vcpu_kick(&vm->vcpu[index]);
	return 0;
}

void vm_stop(struct vm *vm)
{
	atomic_store(&vm->stopping, true);
	pthread_mutex_lock(&vm->lock);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	kick_all(vm);
	for (unsigned i = 0; i < vm->nvcpus; i++) {
		if (!vm->vcpu[i].has_thread)
			continue;
		pthread_join(vm->vcpu[i].thread, NULL);
		vm->vcpu[i].has_thread = false;
	}
}

void vm_pause(struct vm *vm)
{
	atomic_fetch_add(&vm->paused, 1);
	kick_all(vm);
	pthread_mutex_lock(&vm->lock);
	while (vm->parked < vm->live && !atomic_load(&vm->stopping))
		pthread_cond_wait(&vm->changed, &vm->lock);
	pthread_mutex_unlock(&vm->lock);
}

void vm_resume(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	atomic_fetch_sub(&vm->paused, 1);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

void vm_hold(struct vm *vm, unsigned index, bool hold)
{
	atomic_store(&vm->vcpu[index].held, hold);
}

void vm_request(struct vm *vm, enum vm_request request)
{
	int none = VM_REQUEST_NONE;

	if (atomic_compare_exchange_strong(&vm->request, &none, (int)request))
		kick_all(vm);
}

void vm_irq_set(struct vm *vm, unsigned gsi, bool level)
{
	vm->engine->irq_set(vm, gsi, level);
}

void vm_irq_pulse(struct vm *vm, unsigned gsi)
{
	vm_irq_set(vm, gsi, true);
	vm_irq_set(vm, gsi, false);
}
