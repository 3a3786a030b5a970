/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instruction decoder.  The first byte chooses the mode, the rest is code, which
 * ends where a page ends that may be read: what lies behind cannot.
 */
#include "isa/insn.h"
#include "tests/fuzz/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A readable page with an unreadable one behind it; returns where the first ends. */
static uint8_t *page_end(void)
{
	static uint8_t *end;
	uint8_t *pages;

	if (end)
		return end;
	pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	want(pages != MAP_FAILED && mprotect(pages + PAGE, PAGE, PROT_NONE) == 0);
	end = pages + PAGE;
	return end;
}

static bool inside(const struct insn *in, unsigned off, unsigned size)
{
	return off + size <= in->len && (size == 0 || off >= in->opcode_off);
}

static void check_layout(const struct insn *in, const uint8_t *code)
{
	want(in->prefix_len <= in->opcode_off && in->opcode_off < in->len);
	want(in->modrm_off < in->len && in->sib_off < in->len);
	want(inside(in, in->disp_off, in->disp_size) && inside(in, in->imm_off, in->imm_size));
	want(!in->modrm_off || in->bytes[in->modrm_off] == in->modrm);
	want(!in->sib_off || in->sib_off == in->modrm_off + 1);
	want(!in->rex || (in->mode64 && (in->rex & 0xf0) == 0x40));
	/* Only VEX and EVEX of 32-bit code are written anew. */
	want((!in->mode64 && in->enc != ENC_LEGACY) || memcmp(in->bytes, code, in->len) == 0);
}

static void check_memory(const struct insn *in)
{
	unsigned regs = in->mode64 ? 16 : 8;

	want(in->mem_base < regs || in->mem_base == INSN_REG_NONE || (in->mode64 && in->mem_base == INSN_REG_RIP));
	want(in->mem_index < regs || in->mem_index == INSN_REG_NONE || in->op == INSN_GATHER);
	want(in->mem_scale <= 3 && (in->mem_seg == INSN_REG_NONE || in->mem_seg == 4 || in->mem_seg == 5));
	want(in->op != INSN_COPY || in->mem_size <= INSN_MEM_MAX);
	want(in->mem || !in->mem_rw);
}

static void check(const struct insn *in, const uint8_t *code, size_t avail)
{
	want(in->len >= 1 && in->len <= INSN_LEN_MAX && in->len <= avail);
	want(in->op <= INSN_GATHER && in->sys <= SYS_X87_ENV && in->enc <= ENC_EVEX && in->rep <= REP_REPNE);
	want((in->op == INSN_SYSTEM) == (in->sys != SYS_NONE) || in->op == INSN_UD);
	want(!(in->flags_killed & ~in->flags_written) && !(in->flags_written & ~FLAGS_ARITH));
	want(!(in->flags_read & ~FLAGS_ARITH));
	/* SYSCALL and SYSRET know R11 in every mode. */
	want(in->mode64 || in->op == INSN_SYSTEM || !((in->gpr_read | in->gpr_written) >> 8));
	if (in->op == INSN_UD)
		return;	/* nothing else of it counts */
	want(in->addrsize == 2 || in->addrsize == 4 || (in->mode64 && in->addrsize == 8));
	check_layout(in, code);
	check_memory(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct insn at_once, in;
	const uint8_t *code;
	bool mode64;
	int last = -ENODATA;

	if (len < 2)
		return 0;
	mode64 = data[0] & 1;
	data++;
	len = len - 1 < INSN_LEN_MAX ? len - 1 : INSN_LEN_MAX;
	/* One more byte each time: once the answer is known, it stays. */
	for (size_t n = 1; n <= len; n++) {
		int r;

		code = memcpy(page_end() - n, data, n);
		r = insn_decode(code, n, mode64, &in);
		want(r == 0 || r == -E2BIG || (r == -ENODATA && n < INSN_LEN_MAX));
		want(last == -ENODATA || r == last);
		want(last != 0 || memcmp(&in, &at_once, sizeof(in)) == 0);
		if (r == 0)
			check(&in, code, n);
		if (r == 0 && last != 0)
			want(in.op == INSN_UD || in.len == n);	/* known with its last byte, not before */
		at_once = in;
		last = r;
	}
	return 0;
}
