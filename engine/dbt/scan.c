/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a block: which instructions it has, which registers stay free, where flags are live. */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define AHEAD_MAX 12

static bool ends_block(const struct insn *in, uint32_t mode)
{
	if ((mode & BLOCK_NO_FPU) && in->uses_fpu)
		return true;
	if ((mode & BLOCK_USER) && in->privileged)
		return true;
	if (is_quick(in, mode))
		return false;
	switch ((enum insn_op)in->op) {
	case INSN_COPY:
	case INSN_LEA:
	case INSN_NOP:
	case INSN_PUSH:
	case INSN_POP:
	case INSN_CLI:
	case INSN_CLD:
	case INSN_STD:
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_SWAPGS:
	case INSN_RDTSC:
	case INSN_RDTSCP:
	case INSN_RDPID:
	case INSN_STI:
		return false;
	case INSN_PUSHF:
		return in->opsize != 8;
	case INSN_SYSTEM:
		return !(in->sys == SYS_MOV_FROM_SEG && !in->mem);
	case INSN_LEAVE:
		return in->opsize == 2;
	case INSN_UD:
	case INSN_JMP:
	case INSN_JCC:
	case INSN_CALL:
	case INSN_JMP_IND:
	case INSN_CALL_IND:
	case INSN_RET:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
	case INSN_POPF:
	case INSN_ENTER:
	case INSN_PUSHA:
	case INSN_POPA:
	case INSN_PUSH_SEG:
	case INSN_POP_SEG:
	case INSN_MOVS:
	case INSN_STOS:
	case INSN_LODS:
	case INSN_SCAS:
	case INSN_CMPS:
	case INSN_INS:
	case INSN_OUTS:
	case INSN_GATHER:
	case INSN_WRFSBASE:	/* must check that the address is canonical */
	case INSN_WRGSBASE:
		return true;
	}
	return true;
}

bool is_helper(const struct insn *in, uint32_t mode)
{
	if (!ends_block(in, mode))
		return false;
	if (((mode & BLOCK_NO_FPU) && in->uses_fpu) || ((mode & BLOCK_USER) && in->privileged))
		return true;
	return !(in->op >= INSN_JMP && in->op <= INSN_LOOPNE) && !is_fast_entry(in, mode);
}

uint16_t names(const struct insn *in)
{
	if (is_fast_entry(in, BLOCK_USER) || is_fast_entry(in, 0))	/* it takes R11 from memory and leaves it there */
		return (uint16_t)((in->gpr_read | in->gpr_written) & ~SCRATCH_REGISTERS);
	return in->gpr_read | in->gpr_written;
}

static const uint8_t borrow_order[] = { R15, R14, R13, R12, R9, R8, RBX, RBP, RDI, RSI };

unsigned borrow(struct translator *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(borrow_order); i++) {
		unsigned r = borrow_order[i];

		if (!((t->used | t->b->borrowed) & 1u << r)) {
			t->b->borrowed |= (uint16_t)(1u << r);
			return r;
		}
	}
	return NO_REG;
}

static unsigned free_borrowable(uint16_t used)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(borrow_order); i++)
		n += !(used & 1u << borrow_order[i]);
	return n;
}

/* Instructions decoded lately, by their first bytes.  Guarded by code_cache.lock, as all that translates. */
#define DECODED 2048u

static _Alignas(PAGE_SIZE) struct decoded {
	struct insn insn;
	uint8_t bytes[FETCHED];	/* as found */
	bool holds;	/* for whatever comes behind those */
} decoded[DECODED];

void scan_give_back(void)
{
	(void)raw_syscall4(SYS_madvise, (long)(uintptr_t)decoded, sizeof(decoded) & PAGE_MASK, MADV_DONTNEED, 0);
}

/*
 * insn_decode() for guest memory, which may change meanwhile: one look, and what was seen is decoded.  Most of it has been seen
 * before: ahead of another block, or at other places.
 */
static int decode_live(const uint8_t *code, size_t avail, bool mode64, const struct insn **ret)
{
	uint8_t bytes[FETCHED];
	unsigned n = avail < INSN_LEN_MAX ? (unsigned)avail : INSN_LEN_MAX;
	struct decoded *d;
	int r;

	fetch_code(bytes, code, n);
	d = &decoded[page_hash((uint64_t)bytes[0] | (uint64_t)bytes[1] << 8 | (uint64_t)bytes[2] << 16) >> 40 & (DECODED - 1)];
	*ret = &d->insn;
	if (d->holds && d->insn.len <= n && d->insn.mode64 == mode64 && memcmp(d->bytes, bytes, d->insn.len) == 0)
		return 0;
	r = insn_decode(bytes, n, mode64, &d->insn);
	d->holds = r == 0 && d->insn.op != INSN_UD;
	memcpy(d->bytes, bytes, sizeof(d->bytes));
	return r;
}

/* The code at offset @off from the start of the block's page, to the end of its own page; NULL where unknown. */
static const uint8_t *code_at(struct translator *t, int64_t off, size_t *ret_avail)
{
	uint64_t page = ((t->va & PAGE_MASK) + (uint64_t)off) & PAGE_MASK;
	struct translation tr;
	uint32_t error;

	*ret_avail = PAGE_SIZE - ((uint64_t)off & ~PAGE_MASK);
	if (off >= 0 && off < (int64_t)PAGE_SIZE)
		return t->page + off;
	if (t->code32 || t->timid)
		return NULL;
	if (t->other_va != page || !t->other) {
		t->other_va = page;
		t->other = mmu_walk(t->cpu, page, ACCESS_EXEC | ACCESS_PROBE, t->user, &tr, &error) == 0 ? tr.host : NULL;
	}
	return t->other ? t->other + ((uint64_t)off & ~PAGE_MASK) : NULL;
}

/*
 * Flags live before the code at offset @off from the start of the block's page,
 * as far as a short look ahead tells.  What it sees in the block's page is noted in
 * block.ahead; what it sees in others is checked when the exit is linked
 * (exit.dead), which is before anything can rely on it twice.
 */
static uint32_t live_ahead(struct translator *t, int64_t off, unsigned depth)
{
	uint32_t live = 0, open = FLAGS_ARITH;

	for (unsigned i = 0; i < AHEAD_MAX && open; i++) {
		size_t avail;
		const uint8_t *code = code_at(t, off, &avail);
		const struct insn *in;

		if (!code || decode_live(code, avail, !t->code32, &in) < 0)
			return live | open;
		if (off >= 0 && off < (int64_t)PAGE_SIZE)
			t->b->ahead |= line_mask((gpa_t)off, (gpa_t)(off + in->len - 1));
		if (is_fast_entry(in, t->b->mode))
			return live | open;
		live |= in->flags_read & open;
		open &= ~in->flags_killed;
		off += in->len;
		if (in->op == INSN_JMP) {
			off += in->imm;
		} else if (in->op == INSN_JCC) {
			int64_t taken = off + in->imm;

			if (depth == 0)
				return live | open;
			return live | (open & (live_ahead(t, off, depth - 1) | live_ahead(t, taken, depth - 1)));
		} else if (is_helper(in, t->b->mode) || in->op == INSN_RET || in->op == INSN_JMP_IND) {
			return live | open;
		} else if (in->op == INSN_CALL) {
			off += in->imm;
		} else if (in->op >= INSN_JMP && in->op <= INSN_LOOPNE) {
			return live | open;
		}
	}
	return live | open;
}

uint32_t live_at(struct translator *t, int64_t off)
{
	return live_ahead(t, (int64_t)(t->b->pa & 4095) + off, 1);
}

static uint32_t live_at_end(struct translator *t)
{
	const struct insn *in = &t->insn[t->n - 1];
	int64_t next = t->guest_off[t->n];

	if (t->b->pa2 != ~0ull || is_helper(in, t->b->mode) || is_fast_entry(in, t->b->mode) || t->b->mode & BLOCK_BREAK)
		return FLAGS_ARITH;
	switch ((int)in->op) {
	case INSN_JMP:
	case INSN_CALL:
		return live_at(t, next + in->imm);
	case INSN_JCC:
		return live_at(t, next) | live_at(t, next + in->imm);
	case INSN_RET:
	case INSN_JMP_IND:
	case INSN_CALL_IND:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
		return FLAGS_ARITH;
	default:
		return live_at(t, next);
	}
}

void flow_flags(struct translator *t)
{
	uint32_t live = live_at_end(t);

	t->live[t->n] = live;
	for (unsigned i = t->n; i-- > 0;) {
		const struct insn *in = &t->insn[i];
		struct side_exit *side = side_exit_at(t, i);

		if (side)
			live = side->live = live | live_at(t, side->off);
		live = (live & ~in->flags_killed) | in->flags_read;
		if (is_fast_entry(in, t->b->mode))
			live = in->sys == SYS_SYSCALL ? FLAGS_ARITH : 0;
		if (is_helper(in, t->b->mode) && in->flags_killed != FLAGS_ARITH)
			live = FLAGS_ARITH;	/* what the interpreter reads is its own business; not POPF, IRET */
		t->live[i] = live;
	}
	t->b->live_in = live;
}

struct side_exit *side_exit_at(struct translator *t, unsigned i)
{
	for (unsigned k = 0; k < t->nsides; k++)
		if (t->side[k].insn == i)
			return &t->side[k];
	return NULL;
}

/* Makes the instruction scanned last, a conditional jump forward, a way out of a block that goes on behind it. */
static bool add_side_exit(struct translator *t)
{
	const struct insn *in = &t->insn[t->n - 1];

	if (in->op != INSN_JCC || in->imm <= 0 || t->nsides == SIDE_EXITS_MAX || t->code32 ||
	    t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW | BLOCK_PLAIN | BLOCK_BREAK) ||
	    (t->n >= 2 && t->insn[t->n - 2].op == INSN_STI))
		return false;
	t->side[t->nsides++] = (struct side_exit){ .insn = t->n - 1, .off = t->guest_off[t->n] + in->imm };
	return true;
}

/* Whether a block that has side exits ends in front of offset @off: where others join, or begin. */
static bool joins_others(struct translator *t, unsigned off)
{
	for (unsigned k = 0; k < t->nsides; k++)
		if (t->side[k].off == off)
			return true;
	return t->nsides && t->lines & line_mask(t->b->pa + off, t->b->pa + off) &&
	       block_find(t->cc, t->b->pa + off, t->b->mode, t->va + off);
}

bool scan(struct translator *t, const uint8_t *bytes, const uint8_t *pa2_bytes)
{
	unsigned off = 0, room = (unsigned)(PAGE_SIZE - (t->b->pa & 4095));
	unsigned most = t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW) ? 1 : BLOCK_INSNS_MAX;
	uint16_t used = 0;

	t->b->pa2 = ~0ull;
	t->nsides = 0;
	for (t->n = 0; t->n < most;) {
		struct insn *in = &t->insn[t->n];
		const struct insn *found;
		uint16_t now;
		int r = decode_live(bytes + off, room - off, !t->code32, &found);

		if (r == 0)
			*in = *found;
		if (r == -ENODATA || (r < 0 && room - off < INSN_LEN_MAX)) {
			uint8_t both[2 * FETCHED];
			unsigned here = room - off;

			if (t->n > 0)
				break;	/* the crossing instruction gets a block of its own */
			fetch_code(both, bytes + off, here);
			if (pa2_bytes)
				fetch_code(both + here, pa2_bytes, INSN_LEN_MAX - here);
			r = insn_decode(both, pa2_bytes ? INSN_LEN_MAX : here, !t->code32, in);
			if (r < 0 && !pa2_bytes)
				return false;	/* page fault on the second page */
			t->b->pa2 = 0;	/* the caller fills it in */
		}
		if (r < 0) {	/* too long: #GP, told apart by the interpreter */
			memset(in, 0, sizeof(*in));
			in->op = INSN_UD;
			in->len = INSN_LEN_MAX;
			in->mode64 = !t->code32;
		}
		now = used | names(in);
		if (t->n > 0 && (now & SCRATCH_REGISTERS) && free_borrowable(now) < 3)
			break;
		if (t->nsides && (now & ~used & SCRATCH_REGISTERS))
			break;	/* the way out would have to bring them home */
		used = now;
		t->written |= in->gpr_written;
		t->guest_off[t->n] = (uint16_t)off;
		off += in->len;
		t->n++;
		t->guest_off[t->n] = (uint16_t)off;
		if (t->b->pa2 != ~0ull || off >= room || (ends_block(in, t->b->mode) && !add_side_exit(t)) || joins_others(t, off))
			break;
		if (t->n >= 2 && t->insn[t->n - 2].op == INSN_STI)
			break;
		if (t->b->mode & BLOCK_BREAK && (code_breaks_at(t->cc, t->b->pa) || code_breaks_at(t->cc, t->b->pa + off)))
			break;
	}
	t->b->len = (uint16_t)off;
	t->b->ninsns = (uint16_t)t->n;
	t->s0 = T0;
	t->s1 = T1;
	t->used = used;
	t->b->borrowed = 0;
	t->b->at_home = used & SCRATCH_REGISTERS;
	if (used & 1u << T0)
		t->s0 = borrow(t);
	if (used & 1u << T1)
		t->s1 = borrow(t);
	return true;
}
