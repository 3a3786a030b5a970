/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter for instructions whose meaning depends on privilege or on
 * state that translated code does not hold, and for the stack and branch
 * instructions when their memory operand cannot be answered by the TLB.
 */
#include "engine/dbt/interpret.h"

#include "engine/dbt/run.h"

/* ---------------------------------------------------------------- registers */

uint64_t read_gpr(const struct cpu *cpu, unsigned reg, unsigned size)
{
	uint64_t v = cpu->gpr[reg];

	return size == 8 ? v : size == 4 ? (uint32_t)v : size == 2 ? (uint16_t)v : (uint8_t)v;
}

void write_gpr(struct cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
	uint64_t *r = &cpu->gpr[reg];

	switch (size) {
	case 8: *r = value; break;
	case 4: *r = (uint32_t)value; break;
	case 2: *r = (*r & ~0xffffull) | (uint16_t)value; break;
	default: *r = (*r & ~0xffull) | (uint8_t)value; break;
	}
}

uint64_t operand_address(const struct cpu *cpu, const struct insn *in)
{
	uint64_t ea = (uint64_t)in->mem_disp;

	if (in->mem_base == INSN_REG_RIP)
		ea += cpu->rip + in->len;
	else if (in->mem_base != INSN_REG_NONE)
		ea += cpu->gpr[in->mem_base];
	if (in->mem_index != INSN_REG_NONE)
		ea += cpu->gpr[in->mem_index] << in->mem_scale;
	ea = in->addrsize == 8 ? ea : in->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	ea += segment_base(cpu, in);
	return cpu->mode & BLOCK_32 ? (uint32_t)ea : ea;
}

bool load_data(struct cpu *cpu, uint64_t va, void *dst, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_load(cpu, va, dst, size, cpu->cpl == 3, &error);

	if (vector)
		raise_access(cpu, vector, cpu->fault_va, error);
	return !vector;
}

bool store_data(struct cpu *cpu, uint64_t va, const void *src, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_store(cpu, va, src, size, cpu->cpl == 3, &error);

	if (vector)
		raise_access(cpu, vector, cpu->fault_va, error);
	return !vector;
}

/* Accesses through SS: #SS where others raise #GP. */
static void raise_stack(struct cpu *cpu, int vector, uint32_t error)
{
	raise_access(cpu, vector == VEC_GP ? VEC_SS : vector, cpu->fault_va, error);
}

static bool load_stack(struct cpu *cpu, uint64_t va, void *dst, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_load(cpu, va, dst, size, cpu->cpl == 3, &error);

	if (vector)
		raise_stack(cpu, vector, error);
	return !vector;
}

static bool store_stack(struct cpu *cpu, uint64_t va, const void *src, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_store(cpu, va, src, size, cpu->cpl == 3, &error);

	if (vector)
		raise_stack(cpu, vector, error);
	return !vector;
}

bool load_operand(struct cpu *cpu, const struct insn *in, void *dst, unsigned size)
{
	uint64_t va = operand_address(cpu, in);

	return through_stack_segment(in) ? load_stack(cpu, va, dst, size) : load_data(cpu, va, dst, size);
}

bool store_operand(struct cpu *cpu, const struct insn *in, const void *src, unsigned size)
{
	uint64_t va = operand_address(cpu, in);

	return through_stack_segment(in) ? store_stack(cpu, va, src, size) : store_data(cpu, va, src, size);
}

bool read_rm(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t *ret)
{
	*ret = 0;
	if (in->mem)
		return load_operand(cpu, in, ret, size);
	*ret = read_gpr(cpu, insn_rm(in), size);
	return true;
}

bool write_selector(struct cpu *cpu, const struct insn *in, uint64_t value)
{
	if (in->mem)
		return store_operand(cpu, in, &value, 2);
	write_gpr(cpu, insn_rm(in), in->opsize, value);
	return true;
}

/* -------------------------------------------------------------------- stack */

static uint64_t stack_address(const struct cpu *cpu, int64_t off)
{
	uint64_t va = cpu->gpr[RSP] + (uint64_t)off;

	return cpu->mode & BLOCK_32 ? (uint32_t)va : va;
}

static void move_rsp(struct cpu *cpu, int64_t off)
{
	cpu->gpr[RSP] = stack_address(cpu, off);
}

static bool push(struct cpu *cpu, uint64_t value, unsigned size)
{
	if (!store_stack(cpu, stack_address(cpu, -(int64_t)size), &value, size))
		return false;
	move_rsp(cpu, -(int64_t)size);
	return true;
}

static bool peek(struct cpu *cpu, uint64_t *ret, unsigned size)
{
	*ret = 0;
	return load_stack(cpu, cpu->gpr[RSP], ret, size);
}

static bool push_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v;

	if (in->mem || (in->map == 0 && in->opcode == 0xff)) {
		if (!read_rm(cpu, in, in->opsize, &v))
			return false;
	} else if (in->imm_size) {
		v = (uint64_t)in->imm;
	} else {
		v = cpu->gpr[(in->opcode & 7) | (in->rex & 1 ? 8 : 0)];
	}
	return push(cpu, v, in->opsize);
}

static bool pop_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, old = cpu->gpr[RSP];

	if (!peek(cpu, &v, in->opsize))
		return false;
	move_rsp(cpu, in->opsize);
	if (in->mem) {
		if (store_operand(cpu, in, &v, in->opsize))
			return true;
		cpu->gpr[RSP] = old;
		return false;
	}
	write_gpr(cpu, in->opcode == 0x8f ? insn_rm(in) : ((in->opcode & 7) | (in->rex & 1 ? 8u : 0u)), in->opsize, v);
	return true;
}

static bool popf_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (!peek(cpu, &v, in->opsize))
		return false;
	move_rsp(cpu, in->opsize);
	if (in->opsize > 2)
		mask |= FLAG_AC | FLAG_ID;
	if (cpu->cpl <= (cpu->sysflags >> 12 & 3))
		mask |= FLAG_IF;
	if (cpu->cpl == 0)
		mask |= FLAG_IOPL;
	cpu_set_rflags(cpu, v, mask);
	cpu->sysflags &= ~FLAG_RF;
	return true;
}

static bool enter_insn(struct cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize, level = (unsigned)in->imm2 & 31;
	uint64_t old_rsp = cpu->gpr[RSP], frame, rbp = cpu->gpr[RBP];
	uint32_t error = 0;
	int vector;

	if (!push(cpu, rbp, size))
		return false;
	frame = cpu->gpr[RSP];
	for (unsigned i = 1; i <= level; i++) {
		uint64_t v = frame;

		if (i < level) {
			rbp -= size;
			if (!load_stack(cpu, cpu->mode & BLOCK_32 ? (uint32_t)rbp : rbp, &v, size))
				goto undo;
		}
		if (!push(cpu, v, size))
			goto undo;
	}
	move_rsp(cpu, -(int64_t)(uint16_t)in->imm);
	/* The frame must be writable at its new end (SDM vol. 2, ENTER). */
	vector = mem_probe(cpu, cpu->gpr[RSP], 1, MEM_WRITE, cpu->cpl == 3, &error);
	if (vector) {
		raise_stack(cpu, vector, error);
		goto undo;
	}
	write_gpr(cpu, RBP, size, frame);
	return true;

undo:
	cpu->gpr[RSP] = old_rsp;
	return false;
}

static bool pusha_insn(struct cpu *cpu, unsigned size)
{
	uint64_t old = cpu->gpr[RSP];

	for (unsigned r = RAX; r <= RDI; r++)
		if (!push(cpu, r == RSP ? old : cpu->gpr[r], size)) {
			cpu->gpr[RSP] = old;
			return false;
		}
	return true;
}

/* One register after the other: those in front of a fault have been written (SDM vol. 2, POPA: its operation). */
static bool popa_insn(struct cpu *cpu, unsigned size)
{
	for (unsigned k = 0; k < 8; k++) {
		uint64_t v = 0;

		if (RDI - k == RSP)
			continue;
		if (!load_stack(cpu, stack_address(cpu, (int64_t)(k * size)), &v, size))
			return false;
		write_gpr(cpu, RDI - k, size, v);
	}
	move_rsp(cpu, 8 * (int64_t)size);
	return true;
}

static bool leave_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v = 0, rbp = cpu->gpr[RBP];

	if (!load_stack(cpu, cpu->mode & BLOCK_32 ? (uint32_t)rbp : rbp, &v, in->opsize))
		return false;
	cpu->gpr[RSP] = rbp;
	move_rsp(cpu, in->opsize);
	write_gpr(cpu, RBP, in->opsize, v);
	return true;
}

void shadow_stack_load(struct cpu *cpu)
{
	cpu->intr_shadow = true;
	cpu->stepping &= ~STEP_TF;
}

static bool seg_stack(struct cpu *cpu, const struct insn *in, bool is_push)
{
	static const uint8_t legacy[] = { SEG_ES, SEG_CS, SEG_SS, SEG_DS };
	unsigned seg = in->map == 1 ? (in->opcode & 8 ? SEG_GS : SEG_FS) : legacy[in->opcode >> 3 & 3];
	uint64_t v;

	if (is_push)
		return push(cpu, cpu->seg[seg].sel, in->opsize);
	if (!peek(cpu, &v, in->opsize) || !load_segment(cpu, seg, (uint16_t)v))
		return false;
	move_rsp(cpu, in->opsize);
	if (seg == SEG_SS)
		shadow_stack_load(cpu);
	return true;
}

/* Branches whose operand was out of the TLB's reach. */
static bool branch_insn(struct cpu *cpu, const struct insn *in, uint64_t next)
{
	unsigned size = cpu->mode & BLOCK_32 ? 4 : 8;
	uint64_t target = 0;

	switch ((int)in->op) {
	case INSN_CALL:
		target = next + (uint64_t)in->imm;
		break;
	case INSN_RET:
		if (!peek(cpu, &target, size))
			return false;
		move_rsp(cpu, (int64_t)size + (in->imm_size ? (uint16_t)in->imm : 0));
		break;
	default:
		if (!read_rm(cpu, in, size, &target))
			return false;
		break;
	}
	if ((in->op == INSN_CALL || in->op == INSN_CALL_IND) && !push(cpu, next, size))
		return false;
	cpu->rip = size == 4 ? (uint32_t)target : target;
	return true;
}

void interpret(struct cpu *cpu, const struct insn *in)
{
	uint64_t next = cpu->rip + in->len;
	bool ok = true, jumped = false;

	if (cpu->mode & BLOCK_32)
		next = (uint32_t)next;
	if (in->lock && in->op != INSN_COPY && in->op != INSN_UD) {
		raise_vector(cpu, VEC_UD);
		return;
	}
	if (in->privileged && cpu->cpl != 0 && !(in->op == INSN_CLI || in->op == INSN_STI)) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	if (cpu->mode & BLOCK_NO_FPU && in->uses_fpu) {
		raise_vector(cpu, VEC_NM);
		return;
	}
	switch ((enum insn_op)in->op) {
	case INSN_PUSH: ok = push_insn(cpu, in); break;
	case INSN_POP: ok = pop_insn(cpu, in); break;
	case INSN_PUSHF: ok = push(cpu, cpu_rflags(cpu) & ~(FLAG_RF | FLAG_VM), in->opsize); break;
	case INSN_POPF: ok = popf_insn(cpu, in); break;
	case INSN_ENTER: ok = enter_insn(cpu, in); break;
	case INSN_LEAVE: ok = leave_insn(cpu, in); break;
	case INSN_PUSHA: ok = pusha_insn(cpu, in->opsize); break;
	case INSN_POPA: ok = popa_insn(cpu, in->opsize); break;
	case INSN_PUSH_SEG: ok = seg_stack(cpu, in, true); break;
	case INSN_POP_SEG: ok = seg_stack(cpu, in, false); break;
	case INSN_CALL:
	case INSN_CALL_IND:
	case INSN_JMP_IND:
	case INSN_RET:
		ok = branch_insn(cpu, in, next);
		jumped = true;
		break;
	case INSN_CLI:
	case INSN_STI:
		if (cpu->cpl > (cpu->sysflags >> 12 & 3)) {
			raise_error(cpu, VEC_GP, 0);
			return;
		}
		cpu_set_rflags(cpu, in->op == INSN_STI ? FLAG_IF : 0, FLAG_IF);
		break;
	case INSN_WRFSBASE:
	case INSN_WRGSBASE:
		ok = write_base(cpu, in);
		break;
	case INSN_MOVS:
	case INSN_STOS:
	case INSN_LODS:
	case INSN_SCAS:
	case INSN_CMPS:
	case INSN_INS:
	case INSN_OUTS:
		string_insn(cpu, in);	/* moves rip itself */
		return;
	case INSN_GATHER:
		ok = gather_insn(cpu, in);
		break;
	case INSN_SYSTEM:
		ok = system_insn(cpu, in, next, &jumped);
		break;
	case INSN_UD:
	case INSN_COPY:
	case INSN_LEA:
	case INSN_NOP:
	case INSN_JMP:
	case INSN_JCC:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
	case INSN_CLD:
	case INSN_STD:
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_SWAPGS:
	case INSN_RDTSC:
	case INSN_RDTSCP:
	case INSN_RDPID:
		if (in->op == INSN_UD && in->len == INSN_LEN_MAX)
			raise_error(cpu, VEC_GP, 0);
		else
			raise_vector(cpu, VEC_UD);
		return;
	}
	if (ok && !jumped)
		cpu->rip = next;
	if (!cpu->debug.exec)	/* else it may be news, from IRET, and next_block() sees to it */
		cpu->sysflags &= ~FLAG_RF;
}
