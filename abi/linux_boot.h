/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Linux kernel for x86 expects from its loader: the parts of "struct
 * boot_params" (the zero page) and of the bzImage header that roux uses.
 * All fields little-endian.
 *
 * Source: Documentation/x86/boot.rst and zero-page.rst of Linux.
 */
#ifndef ABI_LINUX_BOOT_H
#define ABI_LINUX_BOOT_H

#include <stddef.h>
#include <stdint.h>

#define LINUX_BOOT_FLAG 0xaa55u
#define LINUX_HEADER_MAGIC 0x53726448u	/* "HdrS" */
#define LINUX_XLF_KERNEL_64 1u	/* xloadflags: has a 64-bit entry point */
#define LINUX_E820_MAX 128

enum linux_e820_type { LINUX_E820_RAM = 1, LINUX_E820_RESERVED = 2, LINUX_E820_ACPI = 3 };

/* At offset 0x1f1 of both the bzImage file and the zero page. */
struct linux_setup_header {
	uint8_t setup_sects;	/* 512-byte sectors of real-mode code, 0 means 4 */
	uint16_t root_flags;
	uint32_t syssize;
	uint16_t ram_size, vid_mode, root_dev;
	uint16_t boot_flag;
	uint16_t jump;
	uint32_t header;
	uint16_t version;	/* 0x020c is 2.12 */
	uint32_t realmode_swtch;
	uint16_t start_sys_seg, kernel_version;
	uint8_t type_of_loader;	/* 0xff: not registered */
	uint8_t loadflags;
	uint16_t setup_move_size;
	uint32_t code32_start;
	uint32_t ramdisk_image, ramdisk_size;
	uint32_t bootsect_kludge;
	uint16_t heap_end_ptr;
	uint8_t ext_loader_ver, ext_loader_type;
	uint32_t cmd_line_ptr;
	uint32_t initrd_addr_max;
	uint32_t kernel_alignment;
	uint8_t relocatable_kernel, min_alignment;
	uint16_t xloadflags;
	uint32_t cmdline_size;
	uint32_t hardware_subarch;
	uint64_t hardware_subarch_data;
	uint32_t payload_offset;	/* of the compressed kernel, from the protected-mode code */
	uint32_t payload_length;
	uint64_t setup_data, pref_address;
	uint32_t init_size, handover_offset;
} __attribute__((packed));

struct linux_e820_entry {
	uint64_t addr, size;
	uint32_t type;	/* enum linux_e820_type */
} __attribute__((packed));

struct linux_boot_params {
	uint8_t pad0[0x70];
	uint64_t acpi_rsdp_addr;
	uint8_t pad1[0x1e8 - 0x78];
	uint8_t e820_entries;
	uint8_t pad2[0x1f1 - 0x1e9];
	struct linux_setup_header hdr;
	uint8_t pad3[0x2d0 - 0x268];
	struct linux_e820_entry e820_table[LINUX_E820_MAX];
	uint8_t pad4[0x1000 - 0xcd0];
} __attribute__((packed));

_Static_assert(offsetof(struct linux_boot_params, hdr.header) == 0x202, "boot.rst");
_Static_assert(offsetof(struct linux_boot_params, hdr.payload_offset) == 0x248, "boot.rst");
_Static_assert(offsetof(struct linux_boot_params, e820_table) == 0x2d0, "zero-page.rst");
_Static_assert(sizeof(struct linux_boot_params) == 0x1000, "zero-page.rst");

#endif /* ABI_LINUX_BOOT_H */
