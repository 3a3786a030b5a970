/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/walk.h"

#include "vmm/vcpu_state.h"

#include <errno.h>

#define CR0_PG (1u << 31)
#define CR4_LA57 (1u << 12)
#define EFER_LMA (1u << 10)
#define PTE_P 1u
#define PTE_PS 0x80u
#define PTE_ADDR 0x000ffffffffff000ull

int walk_linear(const struct mem *mem, const struct vcpu_state *state, uint64_t va, gpa_t *ret_gpa)
{
	int top = state->cr4 & CR4_LA57 ? 48 : 39;
	uint64_t table = state->cr3 & PTE_ADDR, sign = (uint64_t)((int64_t)va >> (top + 8)), pte;

	if (!(state->cr0 & CR0_PG)) {
		*ret_gpa = va & 0xffffffff;
		return 0;
	}
	if (!(state->efer & EFER_LMA) || (sign && sign != ~0ull))
		return -EFAULT;
	for (int shift = top;; shift -= 9) {
		uint64_t inside = (1ull << shift) - 1;

		if (mem_read(mem, table + ((va >> shift & 511) << 3), &pte, sizeof(pte)) < 0 || !(pte & PTE_P))
			return -EFAULT;
		if (shift == 12 || (pte & PTE_PS && shift <= 30)) {
			*ret_gpa = (pte & PTE_ADDR & ~inside) | (va & inside);
			return 0;
		}
		table = pte & PTE_ADDR;
	}
}
