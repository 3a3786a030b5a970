/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest x86-64 to host x86-64, one block at a time.
 *
 * Most instructions are copied.  What is rewritten:
 *
 *   memory operands   look the page up in the software TLB, then the same
 *                     instruction on the host address
 *   control flow      exits (block.h)
 *   system            leave to dbt_exit() with the decoded instruction
 *
 * A look-up (flags dead; S0, S1: the two scratch registers):
 *
 *      lea  S0, [guest operand]
 *      rorx S1d, S0d, 9                 S1 = 8 * index, after the AND
 *      and  S1d, (TLB_ENTRIES-1) << 3
 *      add  S0, gs:[S1 + ntag]          S0 = offset in the page if the entry matches
 *      cmp  S0, 4096 - size             also catches accesses that leave the page
 *      ja   miss
 *      mov  S1, gs:[S1 + host or addend]
 *      op   [S0 + S1]       or, for base + displacement:   op [S1 + base + disp]
 *
 * In the second form S1 stays good for neighbours: accesses through the same
 * base register that follow are checked by the first look-up (a group).  When
 * a group's bytes lie in two pages, a BLOCK_PLAIN block runs the rest of the block.
 *
 * Where guest flags are live, the same is done with PEXT, LEA and LOOP,
 * which leave flags alone; RCX waits in S1 meanwhile (emit_jmp_unless_one()).
 *
 * Invariant: at every point where translated code can leave for a fault, guest
 * registers are exactly those before the current instruction, except that S0 and
 * S1 are free, and that borrowed registers are in cpu.spill[].
 */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

#include "vmm/vm.h"

#include <string.h>

#define RETURN_SITES_MAX 8	/* at once */

static void emit_move(struct emit *e, unsigned op, unsigned reg, struct operand m, unsigned size)
{
	if (size == 2)
		emit_u8(e, 0x66);
	emit_op_mem(e, size == 8, op, reg, m.base, m.index, m.scale, m.disp);
}

static void emit_store_imm(struct emit *e, struct operand m, int64_t imm, unsigned size)
{
	if (size == 2)
		emit_u8(e, 0x66);
	emit_op_mem(e, size == 8, 0xc7, 0, m.base, m.index, m.scale, m.disp);
	emit_u8(e, (uint8_t)imm);
	emit_u8(e, (uint8_t)(imm >> 8));
	if (size != 2) {
		emit_u8(e, (uint8_t)(imm >> 16));
		emit_u8(e, (uint8_t)(imm >> 24));
	}
}

static void emit_add_rsp(struct translator *t, int32_t step)
{
	emit_op_mem(&t->e, !t->code32, 0x8d, RSP, RSP, NO_INDEX, 0, step);
}

/* Frees S0 where the operand uses both scratch registers. */
static struct operand squeeze(struct translator *t, struct operand m)
{
	if (m.base != t->s0)
		return m;
	emit_lea(&t->e, t->s1, t->s0, t->s1, 0, 0);
	return (struct operand){ t->s1, NO_INDEX, 0, 0 };
}

static struct operand lookup_operand(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct simple_access a = access_of(t, i);

	if (t->b->mode & BLOCK_SLOW) {
		emit_gs_load(&t->e, t->s0, GS(slow_host));
		return (struct operand){ t->s0, NO_INDEX, 0, 0 };
	}
	if (t->loop.on && t->loop.stream_of[i] >= 0)
		return loop_operand(t, i);
	if (a.is && in->op == INSN_COPY)
		return lookup_simple(t, i, &a);
	return lookup_any(t, i, 0, in->mem_size, in->mem_rw);
}

static void emit_copy(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;

	if (!in->mem || !in->mem_rw) {
		if (!in->mode64 && in->map == 0 && in->opcode >= 0x40 && in->opcode <= 0x4f) {
			emit_bytes(e, in->bytes, in->prefix_len);	/* INC, DEC: REX in 64-bit mode */
			emit_u8(e, 0xff);
			emit_u8(e, 0xc0 | (in->opcode & 15));
		} else if (!in->mode64 && in->map == 0 && in->opcode == 0x82) {
			emit_bytes(e, in->bytes, in->prefix_len);
			emit_u8(e, 0x80);
			emit_bytes(e, in->bytes + in->modrm_off, (unsigned)(in->len - in->modrm_off));
		} else {
			emit_bytes(e, in->bytes, in->len);
		}
		return;
	}
	if (in->mem_implicit)
		emit_through_rdi(t, in, lookup_operand(t, i));
	else if (is_bit_string(in)) {
		emit_bit_string(t, i);
	} else if (in->high_byte) {
		emit_high_byte(t, in, lookup_operand(t, i));
	} else {
		emit_with_operand(e, in, lookup_operand(t, i));
	}
}

static void emit_lea_insn(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned dst = insn_reg(in);
	struct insn plain = *in;

	if (in->mode64 && in->mem_base != INSN_REG_RIP) {
		emit_bytes(e, in->bytes, in->len);
		return;
	}
	plain.mem_seg = INSN_REG_NONE;	/* LEA ignores segments */
	emit_ea(t, &plain, i, 0);
	if (in->opsize == 2)
		emit_u8(e, 0x66);
	emit_op_reg(e, in->opsize == 8, 0x8b, dst, t->s0);
}

static void emit_push(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned size = in->opsize;
	struct operand m;

	if (in->mem) {
		struct operand from = lookup_any(t, i, 0, size, MEM_READ);

		emit_move(e, 0x8b, t->s0, from, size);
		emit_gs_store(e, GS(tmp) + 8, t->s0);
		m = squeeze(t, lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE));
		emit_gs_load(e, t->s0, GS(tmp) + 8);
		emit_move(e, 0x89, t->s0, m, size);
	} else if (in->imm_size) {
		emit_store_imm(e, lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE), in->imm, size);
	} else {
		unsigned reg = (in->opcode == 0xff ? in->modrm & 7 : in->opcode & 7) | (in->rex & 1 ? 8 : 0);

		m = lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE);
		emit_move(e, 0x89, reg, m, size);
	}
	emit_add_rsp(t, -(int32_t)size);
}

static void emit_pop(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned size = in->opsize, reg;
	struct operand m = lookup_stack(t, i, 0, size, MEM_READ);

	if (in->mem) {
		emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
		emit_gs_store(e, GS(tmp) + 8, t->s0);
		/* The address is computed after RSP moved (SDM vol. 2, POP). */
		m = squeeze(t, lookup_any(t, i, in->mem_base == RSP ? (int64_t)size : 0, size, MEM_WRITE));
		emit_gs_load(e, t->s0, GS(tmp) + 8);
		emit_move(e, 0x89, t->s0, m, size);
		emit_add_rsp(t, (int32_t)size);
		return;
	}
	reg = pop_register(in);
	if (reg == RSP && size == 2) {	/* POP SP: rare, and RSP would move twice */
		emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
		emit_add_rsp(t, 2);
		emit_u8(e, 0x66);
		emit_op_reg(e, false, 0x8b, RSP, t->s0);
		return;
	}
	emit_move(e, 0x8b, reg, m, size);
	if (reg != RSP)
		emit_add_rsp(t, (int32_t)size);
}

static void emit_leave(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	unsigned size = t->code32 ? 4 : 8;
	struct operand m;

	if (t->code32) {
		m = lookup_stack32(t, i, RBP, 0, size, MEM_READ);
	} else {
		struct simple_access a = { true, false, RBP, MEM_READ, 0, 8 };

		t->group_on = false;
		m = lookup_simple(t, i, &a);
	}
	emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
	emit_op_mem(e, !t->code32, 0x8d, RSP, RBP, NO_INDEX, 0, (int32_t)size);
	emit_mov(e, RBP, t->s0);
	t->group_on = false;
}

static void push_return(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	unsigned size = t->code32 ? 4 : 8;
	struct operand m = lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE);
	int64_t va = block_va(t, t->guest_off[i + 1]);

	if (t->absolute) {
		emit_store_imm(e, m, va, size);
	} else {
		m = squeeze(t, m);
		emit_guest_va(t, t->s0, va);
		emit_move(e, 0x89, t->s0, m, size);
	}
	emit_add_rsp(t, -(int32_t)size);
	t->remake.moved -= size;
}

/* A call but for the way to its target.  T0 and T1 are free then. */
static void begin_call(struct translator *t, unsigned i)
{
	push_return(t, i);
	flags_settle(t, t->s0);
	leave_state(t);
}

static void emit_call(struct translator *t, unsigned i)
{
	int64_t off = t->guest_off[t->n] + t->insn[i].imm;

	begin_call(t, i);
	if (pairs_calls(t))
		emit_paired_call(t, off);
	else
		emit_goto(t, off, t->live[t->n]);
}

/* S0 = target of an indirect jump or call. */
static void emit_target(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	unsigned size = t->code32 ? 4 : 8;

	if (in->mem)
		emit_move(&t->e, 0x8b, t->s0, lookup_any(t, i, 0, size, MEM_READ), size);
	else
		emit_op_reg(&t->e, !t->code32, 0x8b, t->s0, insn_rm(in));
}

/* T0 = where the call goes whose register still has it, now that what the block kept elsewhere is back. */
static void emit_late_target(struct translator *t, unsigned reg)
{
	if (is_scratch(reg))
		emit_gs_abs(&t->e, !t->code32, 0x8b, T0, GS(gpr) + 8 * reg);
	else
		emit_op_reg(&t->e, !t->code32, 0x8b, T0, reg);
}

/* Goes to the guest address in T0, the target of instruction i. */
static void go_indirect(struct translator *t, unsigned i)
{
	if (may_guess(t, i))
		emit_guess(t);
	else
		emit_dispatch(t, t->user);
}

static void emit_call_indirect(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	bool late = !in->mem && insn_rm(in) != RSP;

	if (!late) {
		emit_target(t, i);
		emit_gs_store(&t->e, GS(tmp) + 8, t->s0);
	}
	begin_call(t, i);
	if (pairs_calls(t))
		emit_paired_call_indirect(t);
	if (late)
		emit_late_target(t, insn_rm(in));
	else
		emit_gs_load(&t->e, T0, GS(tmp) + 8);
	go_indirect(t, i);
}

static void emit_jmp_indirect(struct translator *t, unsigned i)
{
	emit_target(t, i);
	flags_settle(t, t->s1);
	leave_state_keep_s0(t);
	go_indirect(t, i);
}

static void emit_ret(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	unsigned size = t->code32 ? 4 : 8;
	struct operand m = lookup_stack(t, i, 0, size, MEM_READ);

	emit_move(&t->e, 0x8b, t->s0, m, size);
	emit_add_rsp(t, (int32_t)(size + (in->imm_size ? (uint16_t)in->imm : 0)));
	t->remake.moved += (int64_t)size + (in->imm_size ? (uint16_t)in->imm : 0);
	flags_settle(t, t->s1);
	leave_state_keep_s0(t);
	if (pairs_calls(t))
		emit_paired_return(t);
	else
		emit_dispatch(t, t->user);
}

static void emit_base_read(struct translator *t, const struct insn *in)
{
	unsigned reg = insn_rm(in);

	emit_gs_abs(&t->e, in->opsize == 8, 0x8b, reg, in->op == INSN_RDFSBASE ? GS(fs_base) : GS(gs_base));
}

static void emit_swapgs(struct translator *t)
{
	emit_gs_load(&t->e, t->s0, GS(gs_base));
	emit_gs_load(&t->e, t->s1, GS(kernel_gs_base));
	emit_gs_store(&t->e, GS(gs_base), t->s1);
	emit_gs_store(&t->e, GS(kernel_gs_base), t->s0);
	t->group_on = false;
}

static void emit_rdtsc(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;

	if (in->op == INSN_RDTSCP)
		emit_u8(e, 0x0f), emit_u8(e, 0xae), emit_u8(e, 0xe8);	/* lfence: waits for loads */
	emit_u8(e, 0x0f), emit_u8(e, 0x31);
	/* EDX:EAX += tsc_offset, keeping flags. */
	emit_op_reg(e, false, 0x8b, t->s0, RDX);
	emit_rorx(e, true, t->s0, t->s0, 32);
	emit_lea(e, t->s0, t->s0, RAX, 0, 0);
	emit_gs_load(e, t->s1, GS(tsc_offset));
	emit_lea(e, t->s0, t->s0, t->s1, 0, 0);
	emit_op_reg(e, false, 0x8b, RAX, t->s0);
	emit_rorx(e, true, RDX, t->s0, 32);
	emit_op_reg(e, false, 0x8b, RDX, RDX);
	t->group_on = false;
	if (in->op == INSN_RDTSCP)
		emit_gs_abs(e, false, 0x8b, RCX, GS(tsc_aux));
}

static void emit_mov_from_seg(struct translator *t, const struct insn *in)
{
	uint32_t off = GS(seg) + (uint32_t)(sizeof(struct seg_reg) * (in->modrm >> 3 & 7) +
					    offsetof(struct seg_reg, sel));
	unsigned reg = insn_rm(in);

	if (in->opsize == 2) {
		emit_gs_movzx(&t->e, 0xb7, t->s0, off);
		emit_u8(&t->e, 0x66);
		emit_op_reg(&t->e, false, 0x8b, reg, t->s0);
	} else {
		emit_gs_movzx(&t->e, 0xb7, reg, off);
	}
}

/* PUSHFQ: host flags by LAHF and SETO, the others from the block; no flag changes. */
static void emit_pushf(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	struct operand m = lookup_stack(t, i, -8, 8, MEM_WRITE);

	emit_gs_store(e, GS(tmp) + 8, RAX);
	emit_flags_to_ax(e);
	emit_rex(e, false, t->s0, 0, 0);	/* movzx S0d, al */
	emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xc0 | (t->s0 & 7) << 3);
	emit_rorx(e, false, t->s0, t->s0, 32 - 11);
	emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xc4);	/* movzx eax, ah */
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_movzx(e, 0xb6, t->s0, GS(intr_enabled));
	emit_rorx(e, false, t->s0, t->s0, 32 - 9);
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_movzx(e, 0xb6, t->s0, GS(direction));
	emit_rorx(e, false, t->s0, t->s0, 32 - 10);
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_abs(e, false, 0x8b, t->s0, GS(sysflags));
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_move(e, 0x89, RAX, m, 8);
	emit_gs_load(e, RAX, GS(tmp) + 8);
	emit_add_rsp(t, -8);
}

static void emit_sti(struct translator *t)
{
	struct emit *e = &t->e;
	uint8_t *none;

	/*
	 * Interrupts that waited become exit requests; the block ends after the next instruction.
	 * Not stored when there are none: the poll, soon, reads a quadword, which would wait for it.
	 */
	emit_gs_store_imm8(e, GS(intr_enabled), 1);
	emit_gs_store(e, GS(tmp), RCX);
	emit_gs_abs(e, false, 0x8b, RCX, GS(deferred));
	none = emit_short(e, 0xe3);
	emit_gs_abs(e, false, 0x89, RCX, GS(exit_self));
	emit_patch_short(e, none);
	emit_gs_load(e, RCX, GS(tmp));
}

bool emit_insn(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct side_exit *side;
	int64_t step;

	flags_before(t, i);
	if (is_helper(in, t->b->mode)) {
		emit_helper(t, i);
		return false;
	}
	if (is_quick(in, t->b->mode)) {
		emit_quick(t, i);
		flags_after(t, i);
		return true;
	}
	switch ((int)in->op) {
	case INSN_COPY: emit_copy(t, i); break;
	case INSN_LEA: emit_lea_insn(t, i); break;
	case INSN_NOP: break;
	case INSN_PUSH: emit_push(t, i); break;
	case INSN_POP: emit_pop(t, i); break;
	case INSN_LEAVE: emit_leave(t, i); break;
	case INSN_CLI: emit_gs_store_imm8(&t->e, GS(intr_enabled), 0); break;
	case INSN_STI: emit_sti(t); break;
	case INSN_PUSHF: emit_pushf(t, i); break;
	case INSN_SYSTEM:
		if (is_fast_entry(in, t->b->mode)) {
			emit_fast_entry(t, i);
			return false;
		}
		emit_mov_from_seg(t, in);
		break;
	case INSN_CLD: emit_gs_store_imm8(&t->e, GS(direction), 0); break;
	case INSN_STD: emit_gs_store_imm8(&t->e, GS(direction), 1); break;
	case INSN_RDFSBASE:
	case INSN_RDGSBASE: emit_base_read(t, in); break;
	case INSN_SWAPGS: emit_swapgs(t); break;
	case INSN_RDTSC:
	case INSN_RDTSCP: emit_rdtsc(t, in); break;
	case INSN_RDPID:
		emit_gs_abs(&t->e, false, 0x8b, insn_rm(in), GS(tsc_aux));
		break;
	case INSN_JMP:
		leave_state(t);
		emit_goto(t, t->guest_off[t->n] + in->imm, t->live[t->n]);
		return false;
	case INSN_JCC:
		side = side_exit_at(t, i);
		if (side) {
			emit_side_exit(t, in, side);
			break;
		}
		leave_state(t);
		emit_jcc_exits(t, in);
		return false;
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
		leave_state(t);
		emit_loop_exits(t, in);
		return false;
	case INSN_CALL: emit_call(t, i); return false;
	case INSN_JMP_IND: emit_jmp_indirect(t, i); return false;
	case INSN_CALL_IND: emit_call_indirect(t, i); return false;
	case INSN_RET: emit_ret(t, i); return false;
	default: break;
	}
	flags_after(t, i);
	if (t->group_on) {
		if (in->op == INSN_STI || (in->op == INSN_COPY && in->mem && in->mem_rw && access_of(t, i).other))
			t->group_on = false;
		else if (!base_step(in, t->group_base, &step))
			t->group_on = false;
		else
			t->group_shift += step;
	}
	return true;
}

static void emit_slow(struct translator *t)
{
	struct exit *x;

	enter_state(t);
	t->marks[0] = (struct insn_mark){ (uint16_t)0, 0 };
	emit_copy(t, 0);
	leave_state(t);
	x = new_exit(t, EXIT_COMMIT, t->guest_off[1]);
	emit_exit_now(t, x);
}

void mark_insn(struct translator *t, unsigned i)
{
	t->marks[i] = (struct insn_mark){ (uint16_t)(emit_pc(&t->e) - (uint64_t)(uintptr_t)t->b->code), t->guest_off[i] };
}

static void emit_body(struct translator *t)
{
	unsigned i;

	enter_state(t);
	for (i = 0; i < t->n; i++) {
		mark_insn(t, i);
		if (!emit_insn(t, i))
			return;
	}
	flags_settle(t, t->s0);
	leave_state(t);
	/* After STI and its shadow, waiting interrupts must be looked at. */
	if ((t->n >= 2 && t->insn[t->n - 2].op == INSN_STI) || (t->n == 1 && t->insn[0].op == INSN_STI))
		emit_poll(t, t->guest_off[t->n], t->live[t->n] != 0);
	emit_goto(t, t->guest_off[t->n], t->live[t->n]);
}

/* For a page of relocatable code at @va: relative to @vbase, which is in use, if that is near. */
static int64_t first_off(uint64_t va, uint64_t vbase)
{
	int64_t near = (int64_t)(va - ((vbase & PAGE_MASK) | VBASE_LOW));

	return near > -VBASE_REACH && near < VBASE_REACH ? near : -(int64_t)VBASE_LOW;
}

/* Whether all code so far ends with a jump to @src: what has no other entry follows it at once, and the jump is none (block.c). */
static bool is_next(const struct code_cache *cc, const struct block_source *src, uint64_t vbase)
{
	const struct exit *x = cc->end;

	return x && x->patch + 4 == cc->rw + cc->used && src->arrival == ARRIVE_WITHIN &&
	       (uint64_t)x->target + (x->from->absolute ? 0 : vbase) == src->va;
}

static struct block *translate_block(struct code_cache *cc, struct cpu *cpu, const struct block_source *src)
{
	static struct translator t;	/* guarded by cc->lock; large */
	struct block *b = &cc->blocks[cc->nblocks];
	uint64_t va = src->va;
	gpa_t pa = src->pa;
	uint32_t mode = src->mode;
	struct code_page *page = code_cache_full(cc) ? NULL : code_page_get(cc, pa & PAGE_MASK);
	bool full;

	if (!page)
		return NULL;
	memset(b, 0, sizeof(*b));
	t.cc = cc;
	t.b = b;
	t.va = va;
	t.page = src->bytes - (pa & 4095);
	t.cpu = cpu;
	t.other = NULL;
	t.lines = page->lines;
	t.timid = page->timid;
	t.user = mode & BLOCK_USER;
	t.code32 = mode & BLOCK_32;
	t.absolute = is_absolute(va, mode);
	t.smp = cpu->vm->vm->nvcpus > 1;
	t.loop.on = false;
	t.written = 0;
	t.nmiss = t.nstubs = 0;
	t.strayed = NULL;
	t.last_jump = NULL;
	t.group_on = false;
	t.remake = (struct remake){ 0 };
	b->pa = pa;
	b->mode = mode;
	b->absolute = t.absolute;
	b->va = va;
	if (!t.absolute) {
		if (!page->has_off)
			code_page_base(cc, page, first_off(va & PAGE_MASK, cpu->vbase));
		b->off = page->off + (int64_t)(pa & ~PAGE_MASK);
		t.number = page->number;
	}
	b->first_exit = cc->nexits;
	if (!scan(&t, src->bytes, src->bytes2))
		return NULL;
	if (b->pa2 != ~0ull)
		b->pa2 = src->pa2;
	flow_flags(&t);
	if (mode & (BLOCK_SINGLE | BLOCK_SLOW))
		t.live[0] |= FLAGS_ARITH & ~t.insn[0].flags_killed, t.live[1] = FLAGS_ARITH;

	if (!is_next(cc, src, cpu->vbase))
		cc->used = (cc->used + 15) & ~(size_t)15;
	t.e = (struct emit){ .p = cc->rw + cc->used, .end = cc->rw + COLD_START, .delta = cc->rx - cc->rw };
	if (src->arrival == ARRIVE_INDIRECT) {
		b->entry = emit_entry(&t.e, b);
	} else if (src->arrival != ARRIVE_WITHIN && !t.absolute && t.number < CODE_NUMBERS) {
		b->called = src->arrival == ARRIVE_BY_CALL;
		b->checked = emit_checked_entry(&t.e, cc, b, t.number, b->called);
	}
	b->code = (uint8_t *)(uintptr_t)emit_pc(&t.e);
	b->careful = t.insn[0].mem_careful;
	b->peculiar = t.insn[0].mem_masked || t.insn[0].mem_implicit;
	if (mode & BLOCK_SLOW)
		emit_slow(&t);
	else if (loop_plan(&t))
		emit_loop(&t);
	else
		emit_body(&t);
	b->code_len = (uint32_t)(emit_pc(&t.e) - (uint64_t)(uintptr_t)b->code);
	full = t.e.full;
	cc->used = (size_t)(t.e.p - cc->rw);
	cc->end = t.last_jump;
	/* Between blocks stubs would be fetched in vain. */
	t.e = (struct emit){ .p = cc->rw + cc->cold, .end = cc->rw + cc->size, .delta = cc->rx - cc->rw };
	for (unsigned k = 0; k < t.nmiss; k++)
		emit_miss_stub(&t, &t.miss[k]);
	emit_strayed_return(&t);
	for (unsigned k = 0; k < t.nsides; k++)
		emit_rest_of_side_exit(&t, &t.side[k]);
	for (unsigned k = 0; k < t.nstubs; k++)
		emit_exit_stub(&t, &t.stub[k]);
	b->marks = code_arena(cc, t.n * sizeof(*b->marks));
	if (full || t.e.full || !b->marks)
		return NULL;
	memcpy(b->marks, t.marks, t.n * sizeof(*b->marks));
	cc->cold = (size_t)(t.e.p - cc->rw);
	cc->nblocks++;
	b->seen = t.absolute && b->pa2 == ~0ull ? src->seen : NULL;
	block_insert(cc, b);
	cpu->stats.blocks++;
	return b;
}

/*
 * What is called returns, mostly: where to is translated together with the call at the end of @b, which is of @src, and lies right
 * behind it, so that the jump there is none (store_jump() in block.c).
 */
static void translate_return_sites(struct code_cache *cc, struct cpu *cpu, struct block_source src, struct block *b)
{
	src.arrival = ARRIVE_WITHIN;
	src.mode &= ~(uint32_t)BLOCK_PLAIN;
	for (unsigned i = 0; i < RETURN_SITES_MAX && !code_cache_full(cc); i++) {
		struct exit *x = b->nexits ? &cc->exits[b->first_exit + b->nexits - 1] : NULL;

		if (!x || !x->returns)
			return;
		src.pa += b->len;
		src.va += b->len;
		src.bytes += b->len;
		b = block_find(cc, src.pa, src.mode, src.va) ? NULL : translate_block(cc, cpu, &src);
		if (!b || x->dead & b->live_in)
			return;
		exit_link(cc, x, b);
	}
}

struct block *translate(struct code_cache *cc, struct cpu *cpu, const struct block_source *src)
{
	struct block *b = translate_block(cc, cpu, src);

	if (b)
		translate_return_sites(cc, cpu, *src, b);
	return b;
}
