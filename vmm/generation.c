/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/generation.h"

#include "vmm/guest_mem.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdint.h>
#include <sys/random.h>

int generation_draw(struct mem *mem)
{
	uint8_t id[16];

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	return mem_write(mem, GENERATION_AT, id, sizeof(id));
}

void generation_tell(struct vm *vm)
{
	vm_irq_pulse(vm, GENERATION_GSI);
}
