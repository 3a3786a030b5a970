/* SPDX-License-Identifier: Apache-2.0 */
/* What must agree after an item, and how to show it to a person. */
#ifndef TESTS_DIFF_COMPARE_H
#define TESTS_DIFF_COMPARE_H

#include "tests/diff/diff.h"

#include <stdio.h>
#include <Zydis/Zydis.h>

/*
 * Compares registers, exception and memory of the runs just made; writes one
 * line a difference to @out unless that is NULL.  Returns how many there are.
 *
 * Left out: the x87 instruction and operand pointers with the opcode, which are
 * the host's while translated code runs; MXCSR_MASK; and in the frame of a fault
 * the arithmetic flags that no later instruction reads (the translator may have
 * found them dead).  Known to differ and passed over: a jump to a non-canonical
 * address is reported at the jump by the CPU and at its target by the translator;
 * operands across the limit of a 32-bit segment; in 32-bit code, the upper halves
 * of registers, which are undefined (SDM vol. 1, 3.4.1.1), and vector registers
 * beyond the seventh, which VZEROALL and VZEROUPPER there leave alone.
 */
unsigned compare(const struct item *item, const struct outcome *native, const struct outcome *guest, FILE *out);

/* Disassembly, one-line form, and initial state. */
void show_item(const struct item *item, const struct regs *regs, FILE *out);
/* The line of regressions.txt. */
void show_line(const struct item *item, FILE *out);
/* Length of the instruction at @off of the item's code; 1 where there is none. */
unsigned insn_length(const struct item *item, unsigned off);
/* Same for instructions that a CPU has or has not as a whole: mnemonic, encoding, vector length. */
uint32_t insn_key(const struct item *item);

/* Decoder of 32-bit or of 64-bit code.  Borrowed. */
const ZydisDecoder *item_decoder(bool code32);

#endif /* TESTS_DIFF_COMPARE_H */
