/* SPDX-License-Identifier: Apache-2.0 */
/* The input is an ELF kernel; loading stays inside guest memory and ends. */
#include "vmm/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static uint8_t ram[2 << 20];
	struct elf_info info;
	struct mem mem;

	mem_init_borrowed(&mem, ram, KERNEL_LOAD_MIN - 4096, sizeof(ram));
	if (elf_load(&mem, data, len, &info, NULL) == 0 &&
	    (info.start < KERNEL_LOAD_MIN || info.entry >= info.end))
		__builtin_trap();
	return 0;
}
