/* SPDX-License-Identifier: Apache-2.0 */
/* Guest page tables as somebody outside the guest reads them: nothing is marked accessed. */
#ifndef VMM_WALK_H
#define VMM_WALK_H

#include "vmm/guest_mem.h"

struct vcpu_state;

/*
 * Translates linear address @va as the vCPU in @state would, whatever the
 * privilege (SDM vol. 3, 4.5).  Returns 0 with the guest-physical address, or
 * -EFAULT when it is not mapped, not canonical, or paging is not that of 64-bit mode.
 */
int walk_linear(const struct mem *mem, const struct vcpu_state *state, uint64_t va, gpa_t *ret_gpa);

#endif /* VMM_WALK_H */
