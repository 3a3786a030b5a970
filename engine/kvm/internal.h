/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this folder only. */
#ifndef ENGINE_KVM_INTERNAL_H
#define ENGINE_KVM_INTERNAL_H

#include "vmm/guest_mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;
struct kvm_run;
struct vcpu;
struct vcpu_state;
struct vm;
struct vm_state;

/* vm->engine_data */
struct kvm_vm {
	int fd;	/* of the VM */
	size_t run_size;	/* bytes of a vCPU's shared page */
	/* Pages written by the host while the dirty log is on, one bit each; else NULL. */
	_Atomic uint64_t *host_dirty;
};

/* vcpu->engine_data */
struct kvm_vcpu {
	int fd;
	struct kvm_run *run;	/* shared with the kernel */
	_Atomic bool kicked;
	pthread_mutex_t lock;	/* guards tid */
	pid_t tid;	/* thread inside vcpu_run(), or 0 */
};

int kvm_probe(struct err *err);

int kvm_get_state(struct vcpu *vcpu, struct vcpu_state *ret_state, struct err *err);
int kvm_set_state(struct vcpu *vcpu, const struct vcpu_state *state, struct err *err);
int kvm_get_vm_state(struct vm *vm, struct vm_state *ret_state, struct err *err);
int kvm_set_vm_state(struct vm *vm, const struct vm_state *state, struct err *err);

int kvm_dirty_log_set(struct vm *vm, bool on, struct err *err);
int kvm_dirty_log_get(struct vm *vm, uint64_t *bitmap, struct err *err);

/* Tells KVM about bank @slot of guest memory, with or without dirty tracking. */
int kvm_set_bank(const struct vm *vm, unsigned slot, bool log_dirty);

#endif /* ENGINE_KVM_INTERNAL_H */
