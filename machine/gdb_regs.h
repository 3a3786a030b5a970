/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers of struct vcpu_state as GDB numbers and lays them out.  The numbers
 * are those of gdb_regs_xml(), which names the features of GDB's documentation
 * ("i386 Features"), and one of our own for control registers.
 */
#ifndef MACHINE_GDB_REGS_H
#define MACHINE_GDB_REGS_H

#include <stdint.h>

struct vcpu_state;

#define GDB_REG_MAX 16	/* bytes of the largest register */

unsigned gdb_regs_count(void);
/* Bytes of register @n; 0 for one that does not exist. */
unsigned gdb_reg_size(unsigned n);
/* Copies register @n, little-endian, into @buf of GDB_REG_MAX bytes. */
void gdb_reg_read(const struct vcpu_state *state, unsigned n, uint8_t *buf);
/* The reverse.  Segment selectors and control registers do not change. */
void gdb_reg_write(struct vcpu_state *state, unsigned n, const uint8_t *buf);

/* The target description: malloc()ed, or NULL. */
char *gdb_regs_xml(void);

#endif /* MACHINE_GDB_REGS_H */
