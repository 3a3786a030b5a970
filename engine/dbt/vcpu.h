/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the engine: what the files that are engine_ops share.  The other side of a vCPU is in cpu.h. */
#ifndef ENGINE_DBT_VCPU_H
#define ENGINE_DBT_VCPU_H

#include "vmm/engine.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct cpu;
struct err;

#define ALT_STACK_BYTES 65536u
#define XSAVE_MXCSR 24u	/* byte of a vector state image, SDM vol. 1, 13.4 */

/* What vcpu->engine_data points to. */
struct dbt_vcpu {
	struct cpu *cpu;
	int fd;	/* memory of the windows */
	void *area;
	size_t area_size;
	timer_t timer;
	bool has_timer, entered;
	void *alt_stack;
};

/* --- engine.c --- */
/* Whether this host has what translated code needs: 0, or -ENOTSUP. */
int check_host(struct err *err);

/* --- vcpu_run.c --- */
/* Once per process, before a vCPU runs. */
void install_handlers(void);
/* Has the vCPU look at what is asked of it, wherever it is.  Any thread, signal handlers too. */
void wake_cpu(struct cpu *cpu);
enum vcpu_exit dbt_vcpu_run(struct vcpu *vcpu, struct err *err);
void dbt_vcpu_kick(struct vcpu *vcpu);

/* --- vcpu_state.c --- */
int dbt_get_state(struct vcpu *vcpu, struct vcpu_state *ret_state, struct err *err);
int dbt_set_state(struct vcpu *vcpu, const struct vcpu_state *state, struct err *err);
int dbt_debug(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err);
int dbt_get_vm_state(struct vm *vm, struct vm_state *ret_state, struct err *err);
int dbt_set_vm_state(struct vm *vm, const struct vm_state *state, struct err *err);
int64_t dbt_skip_time(struct vm *vm, uint64_t most);

/* --- probe.c --- */
int dbt_probe(struct err *err);

#endif /* ENGINE_DBT_VCPU_H */
