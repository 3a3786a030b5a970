/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot.h"

#include "abi/linux_boot.h"
#include "os/err.h"
#include "vmm/irqchip.h"
#include "vmm/load.h"
#include "vmm/vcpu_state.h"

#include <errno.h>
#include <string.h>

#define PAGE 4096ull
#define INITRD_TOP 0x80000000ull	/* the kernel's limit when no bzImage header says more */

/* Segments in the form of struct seg_reg.attr. */
#define ATTR_CODE64 0x0a9b	/* G L P S execute/read, accessed */
#define ATTR_DATA 0x0c93	/* G B P S read/write, accessed */
#define ATTR_TSS 0x008b	/* P, busy 64-bit TSS */
#define ATTR_LDT_UNUSABLE 0x8082
#define GDT_CODE64 0x00af9b000000ffffull
#define GDT_DATA 0x00cf93000000ffffull
#define SEL_CODE 0x10
#define SEL_DATA 0x18

enum { CR0_PE = 1, CR0_ET = 1 << 4, CR0_NE = 1 << 5, CR0_WP = 1 << 16 };
#define CR0_CD (1ull << 30)
#define CR0_NW (1ull << 29)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)
#define MSR_PAT 0x277u
#define PAT_RESET 0x0007040600070406ull

#define PTE_PRESENT_WRITE 3ull
#define PTE_LARGE (1ull << 7)

int boot_tables(struct mem *mem, struct err *err)
{
	enum { PML4 = 0, PDPT = 512, PD = 1024, DIRECTORIES = 4 };
	uint64_t *t = mem_at(mem, BOOT_PAGE_TABLES, PAGE * (2 + DIRECTORIES));
	uint64_t *gdt = mem_at(mem, BOOT_GDT, PAGE);

	if (!t || !gdt)
		return err_set(err, -ENOMEM, "guest memory is too small");
	memset(t, 0, PAGE * 2);
	t[PML4] = (BOOT_PAGE_TABLES + PAGE) | PTE_PRESENT_WRITE;
	for (uint64_t i = 0; i < DIRECTORIES; i++)
		t[PDPT + i] = (BOOT_PAGE_TABLES + PAGE * (2 + i)) | PTE_PRESENT_WRITE;
	for (uint64_t i = 0; i < DIRECTORIES * 512ull; i++)
		t[PD + i] = i << 21 | PTE_LARGE | PTE_PRESENT_WRITE;
	memset(gdt, 0, PAGE);
	gdt[SEL_CODE / 8] = GDT_CODE64;
	gdt[SEL_DATA / 8] = GDT_DATA;
	mem_wrote(mem, BOOT_GDT, PAGE * (3 + DIRECTORIES));
	return 0;
}

static void add_e820(struct linux_boot_params *bp, uint64_t start, uint64_t end,
		     enum linux_e820_type type)
{
	bp->e820_table[bp->e820_entries++] = (struct linux_e820_entry){
		.addr = start, .size = end - start, .type = type };
}

static void fill_e820(const struct mem *mem, struct linux_boot_params *bp)
{
	add_e820(bp, 0, BOOT_LOW_RESERVED_END, LINUX_E820_RESERVED);
	add_e820(bp, BOOT_LOW_RESERVED_END, BOOT_LOW_RAM_END, LINUX_E820_RAM);
	add_e820(bp, BOOT_TABLES, BOOT_TABLES_END, LINUX_E820_RESERVED);
	add_e820(bp, KERNEL_LOAD_MIN, mem->bank[0].base + mem->bank[0].size, LINUX_E820_RAM);
	add_e820(bp, BOOT_DEVICES, BOOT_DEVICES_END, LINUX_E820_RESERVED);
	for (unsigned i = 1; i < mem->nbanks; i++)
		add_e820(bp, mem->bank[i].base, mem->bank[i].base + mem->bank[i].size,
			 LINUX_E820_RAM);
}

static int load_initrd(struct mem *mem, const struct boot_spec *spec, gpa_t kernel_end,
		       struct linux_boot_params *bp, struct err *err)
{
	uint64_t top = mem->bank[0].base + mem->bank[0].size, total = 0, at = 0;
	uint8_t *dst;
	gpa_t base;

	for (unsigned i = 0; i < spec->ninitrd; i++) {
		total = (total + 3) & ~3ull;
		if (spec->initrd[i].size > INITRD_TOP - total)
			return err_set(err, -ENOMEM, "the initramfs is larger than 2 GiB");
		total += spec->initrd[i].size;
	}
	if (total == 0)
		return 0;
	top = top < INITRD_TOP ? top : INITRD_TOP;
	base = total < top ? (top - total) & ~(PAGE - 1) : 0;
	if (base < kernel_end)
		return err_set(err, -ENOMEM,
			       "no room for the initramfs (%llu KiB): give the machine more than %llu MiB of memory",
			       (unsigned long long)total >> 10, (unsigned long long)mem->size >> 20);
	dst = mem_at(mem, base, total);
	if (!dst)
		return err_set(err, -ENOMEM, "no room for the initramfs");
	for (unsigned i = 0; i < spec->ninitrd; i++) {
		at = (at + 3) & ~3ull;
		memcpy(dst + at, spec->initrd[i].data, spec->initrd[i].size);
		at += spec->initrd[i].size;
	}
	mem_wrote(mem, base, total);
	bp->hdr.ramdisk_image = (uint32_t)base;
	bp->hdr.ramdisk_size = (uint32_t)total;
	return 0;
}

static int write_cmdline(struct mem *mem, const char *cmdline, struct err *err)
{
	size_t len = strlen(cmdline);

	if (len > BOOT_CMDLINE_MAX)
		return err_set(err, -E2BIG, "the kernel command line has %zu bytes; at most %d fit",
			       len, BOOT_CMDLINE_MAX);
	return mem_write(mem, BOOT_CMDLINE, cmdline, len + 1);
}

int boot_load(struct mem *mem, const struct boot_spec *spec, struct vcpu_state *ret_state,
	      struct err *err)
{
	struct linux_boot_params bp = {
		.acpi_rsdp_addr = spec->rsdp,
		.hdr = {
			.boot_flag = LINUX_BOOT_FLAG,
			.header = LINUX_HEADER_MAGIC,
			.version = 0x20f,
			.type_of_loader = 0xff,
			.loadflags = 1,	/* the kernel lies above 1 MiB */
			.kernel_alignment = 0x1000000,
			.cmd_line_ptr = BOOT_CMDLINE,
			.cmdline_size = BOOT_CMDLINE_MAX,
			.initrd_addr_max = INITRD_TOP - 1,
		},
	};
	struct elf_info elf;
	int r;

	r = boot_tables(mem, err);
	if (r == 0)
		r = elf_load(mem, spec->kernel->image, spec->kernel->size, &elf, err);
	if (r == 0)
		r = load_initrd(mem, spec, elf.end, &bp, err);
	if (r == 0)
		r = write_cmdline(mem, spec->cmdline ? spec->cmdline : "", err);
	if (r < 0)
		return r;
	fill_e820(mem, &bp);
	r = mem_write(mem, BOOT_PARAMS, &bp, sizeof(bp));
	if (r < 0)
		return err_set(err, r, "guest memory is too small");
	boot_long_mode_state(0, elf.entry, BOOT_PARAMS, ret_state);
	return 0;
}

static void put_lapic(struct vcpu_state *s, unsigned off, uint32_t value)
{
	memcpy(s->lapic + off, &value, sizeof(value));
}

/* Power-up values, SDM vol. 3, 11.4.7.1. */
static void reset_lapic(unsigned index, struct vcpu_state *s)
{
	put_lapic(s, 0x20, index << 24);
	put_lapic(s, 0x30, 0x14 | 5 << 16);	/* version, highest LVT entry */
	put_lapic(s, 0xe0, 0xffffffff);	/* flat model */
	put_lapic(s, 0xf0, 0xff);	/* software-disabled */
	for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 0x10)
		put_lapic(s, lvt, 1 << 16);
	s->apic_base = LAPIC_MMIO_BASE | 1 << 11 | (index == 0 ? 1 << 8 : 0);
}

/* x87 and SSE as after FNINIT; all other components in their initial state. */
static void reset_xsave(struct vcpu_state *s)
{
	uint16_t fcw = 0x37f;
	uint32_t mxcsr = 0x1f80;
	uint64_t xstate_bv = 3;

	memcpy(s->xsave, &fcw, sizeof(fcw));
	memcpy(s->xsave + 24, &mxcsr, sizeof(mxcsr));
	memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));
	s->xcr0 = 1;
}

void boot_reset_state(unsigned index, struct vcpu_state *ret_state)
{
	struct vcpu_state *s = ret_state;

	memset(s, 0, sizeof(*s));
	s->rip = 0xfff0;
	s->rflags = 2;
	s->cr0 = CR0_ET | CR0_NW | CR0_CD;
	s->dr[6] = 0xffff0ff0;
	s->dr[7] = 0x400;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct seg_reg){ .limit = 0xffff, .attr = 0x93 };
	s->seg[SEG_CS] = (struct seg_reg){ .base = 0xffff0000, .limit = 0xffff, .sel = 0xf000,
					   .attr = 0x9b };
	s->ldtr = (struct seg_reg){ .limit = 0xffff, .attr = 0x82 };
	s->tr = (struct seg_reg){ .limit = 0xffff, .attr = 0x8b };
	s->gdtr.limit = 0xffff;
	s->idtr.limit = 0xffff;
	s->mp_state = index == 0 ? MP_RUNNABLE : MP_WAIT_FOR_SIPI;
	s->msr[s->nmsrs++] = (struct vcpu_msr){ .index = MSR_PAT, .value = PAT_RESET };
	reset_lapic(index, s);
	reset_xsave(s);
}

void boot_long_mode_state(unsigned index, gpa_t rip, uint64_t rsi, struct vcpu_state *ret_state)
{
	struct vcpu_state *s = ret_state;

	boot_reset_state(index, s);
	s->mp_state = MP_RUNNABLE;
	s->rip = rip;
	s->gpr[RSI] = rsi;
	s->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
	s->cr3 = BOOT_PAGE_TABLES;
	s->cr4 = CR4_PAE;
	s->efer = EFER_LME | EFER_LMA;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		s->seg[i] = (struct seg_reg){ .limit = 0xffffffff, .sel = SEL_DATA,
					      .attr = ATTR_DATA };
	s->seg[SEG_CS] = (struct seg_reg){ .limit = 0xffffffff, .sel = SEL_CODE,
					   .attr = ATTR_CODE64 };
	s->ldtr.attr = ATTR_LDT_UNUSABLE;
	s->tr = (struct seg_reg){ .limit = 0x67, .attr = ATTR_TSS };
	s->gdtr = (struct desc_table){ .base = BOOT_GDT, .limit = SEL_DATA + 7 };
	s->idtr = (struct desc_table){ 0 };
}
