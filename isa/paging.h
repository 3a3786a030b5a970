/* SPDX-License-Identifier: Apache-2.0 */
/* Bits of entries of 4-level page tables (Intel SDM vol. 3, 4.5). */
#ifndef ISA_PAGING_H
#define ISA_PAGING_H

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_A 0x20ull
#define PTE_D 0x40ull
#define PTE_PS 0x80ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull

#endif /* ISA_PAGING_H */
