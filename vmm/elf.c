/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/load.h"

#include "base/checked.h"
#include "os/err.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define SEGMENTS_MAX 64

bool elf_is(const uint8_t *image, size_t size)
{
	return size >= SELFMAG && memcmp(image, ELFMAG, SELFMAG) == 0;
}

static int check_header(const Elf64_Ehdr *eh, size_t size, struct err *err)
{
	if (eh->e_ident[EI_CLASS] != ELFCLASS64)
		return err_set(err, -ENOEXEC, "the kernel is a 32-bit ELF file; roux runs 64-bit kernels");
	if (eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
		return err_set(err, -ENOEXEC,
			       "the kernel is for another architecture (ELF machine %u), not x86-64",
			       eh->e_machine);
	if (eh->e_type != ET_EXEC && eh->e_type != ET_DYN)
		return err_set(err, -ENOEXEC, "the kernel is an ELF file but not an executable one");
	if (eh->e_phentsize != sizeof(Elf64_Phdr) || eh->e_phnum == 0 ||
	    eh->e_phnum > SEGMENTS_MAX)
		return err_set(err, -ENOEXEC, "the kernel's program headers are malformed");
	if (!range_ok(eh->e_phoff, (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr), size))
		return err_set(err, -ENOEXEC, "the kernel file is truncated");
	return 0;
}

static int load_segment(struct mem *mem, const uint8_t *image, size_t size, const Elf64_Phdr *ph,
			struct err *err)
{
	uint8_t *dst;

	if (ph->p_filesz > ph->p_memsz || !range_ok(ph->p_offset, ph->p_filesz, size))
		return err_set(err, -ENOEXEC, "the kernel file is truncated");
	if (ph->p_paddr < KERNEL_LOAD_MIN)
		return err_set(err, -ENOEXEC, "the kernel wants to load at 0x%llx, below 1 MiB",
			       (unsigned long long)ph->p_paddr);
	dst = mem_at(mem, ph->p_paddr, ph->p_memsz);
	if (!dst)
		return err_set(err, -ENOMEM,
			       "the kernel needs memory at 0x%llx (%llu KiB); the machine has %llu MiB",
			       (unsigned long long)ph->p_paddr,
			       (unsigned long long)ph->p_memsz >> 10,
			       (unsigned long long)mem->size >> 20);
	memcpy(dst, image + ph->p_offset, ph->p_filesz);
	memset(dst + ph->p_filesz, 0, ph->p_memsz - ph->p_filesz);
	mem_wrote(mem, ph->p_paddr, ph->p_memsz);
	return 0;
}

int elf_load(struct mem *mem, const uint8_t *image, size_t size, struct elf_info *ret_info,
	     struct err *err)
{
	struct elf_info info = { .start = UINT64_MAX };
	Elf64_Ehdr eh;

	if (!elf_is(image, size))
		return err_set(err, -ENOEXEC, "not an ELF file");
	if (size < sizeof(eh))
		return err_set(err, -ENOEXEC, "the kernel file is truncated");
	memcpy(&eh, image, sizeof(eh));
	if (check_header(&eh, size, err) < 0)
		return -ENOEXEC;
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		Elf64_Phdr ph;
		int r;

		memcpy(&ph, image + eh.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type != PT_LOAD || ph.p_memsz == 0)
			continue;
		r = load_segment(mem, image, size, &ph, err);
		if (r < 0)
			return r;
		info.start = ph.p_paddr < info.start ? ph.p_paddr : info.start;
		info.end = ph.p_paddr + ph.p_memsz > info.end ? ph.p_paddr + ph.p_memsz : info.end;
	}
	if (eh.e_entry < info.start || eh.e_entry >= info.end)
		return err_set(err, -ENOEXEC, "the kernel's entry point 0x%llx is outside its segments",
			       (unsigned long long)eh.e_entry);
	info.entry = eh.e_entry;
	*ret_info = info;
	return 0;
}
