/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions on descriptor tables, and on segment registers but for what loads them: event.c. */
#include "engine/dbt/interpret.h"

#include "engine/dbt/run.h"

bool table_insn(struct cpu *cpu, const struct insn *in)
{
	struct desc_table *t = in->sys == SYS_LGDT || in->sys == SYS_SGDT ? &cpu->gdtr : &cpu->idtr;
	unsigned n = cpu->mode & BLOCK_32 ? 4 : 8;
	uint64_t at = operand_address(cpu, in);
	uint8_t raw[10] = { 0 };
	uint64_t base = 0;

	if (in->sys == SYS_SGDT || in->sys == SYS_SIDT) {
		copy_bytes(raw, &t->limit, 2);
		copy_bytes(raw + 2, &t->base, 8);
		return store_data(cpu, at, raw, n + 2);
	}
	if (!load_data(cpu, at, raw, n + 2))
		return false;
	copy_bytes(&base, raw + 2, n);
	if (!canonical(base)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	copy_bytes(&t->limit, raw, 2);
	t->base = base;
	return true;
}

bool system_segment(struct cpu *cpu, const struct insn *in)
{
	struct seg_reg *seg = in->sys == SYS_LTR ? &cpu->tr : &cpu->ldtr;
	uint64_t raw[2] = { 0, 0 }, v;
	uint32_t error, limit;
	uint16_t sel;
	int vector;

	if (!read_rm(cpu, in, 2, &v))
		return false;
	sel = (uint16_t)v;
	if (!(sel & 0xfffc)) {
		if (in->sys == SYS_LTR) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		*seg = (struct seg_reg){ .sel = sel, .attr = ATTR_UNUSABLE };
		return true;
	}
	if (sel & 4 || (sel & ~7u) + (cpu->efer & EFER_LMA ? 15 : 7) > cpu->gdtr.limit) {
		raise_error(cpu, VEC_GP, sel & 0xfffc);
		return false;
	}
	vector = mem_load(cpu, cpu->gdtr.base + (sel & ~7u), raw, cpu->efer & EFER_LMA ? 16 : 8, false, &error);
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return false;
	}
	if ((raw[0] >> 40 & 0x1f) != (in->sys == SYS_LTR ? 9 : 2) || !(raw[0] >> 47 & 1)) {
		raise_error(cpu, raw[0] >> 47 & 1 ? VEC_GP : VEC_NP, sel & 0xfffc);
		return false;
	}
	limit = (uint32_t)((raw[0] & 0xffff) | (raw[0] >> 32 & 0xf0000));
	*seg = (struct seg_reg){
		.base = (raw[0] >> 16 & 0xffffff) | (raw[0] >> 56 & 0xff) << 24 | raw[1] << 32,
		.limit = raw[0] >> 55 & 1 ? limit << 12 | 0xfff : limit,
		.sel = sel,
		.attr = (uint16_t)((raw[0] >> 40 & 0xff) | (raw[0] >> 44 & 0xf00)),
	};
	if (in->sys == SYS_LTR) {	/* mark busy */
		uint8_t type = (uint8_t)(raw[0] >> 40) | 2;

		seg->attr |= 2;
		(void)mem_store(cpu, cpu->gdtr.base + (sel & ~7u) + 5, &type, 1, false, &error);
	}
	return true;
}

bool segment_query(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, raw = 0;
	uint32_t error = 0;
	bool ok = false, code, conforming;
	uint16_t sel;
	unsigned type, dpl;

	if (!read_rm(cpu, in, 2, &v))
		return false;
	sel = (uint16_t)v;
	if (sel & 0xfffc && (sel & ~7u) + 7 <= (sel & 4 ? cpu->ldtr.limit : cpu->gdtr.limit) &&
	    !(sel & 4 && cpu->ldtr.attr & ATTR_UNUSABLE) &&
	    !mem_load(cpu, (sel & 4 ? cpu->ldtr.base : cpu->gdtr.base) + (sel & ~7u), &raw, 8, false, &error)) {
		type = raw >> 40 & 0x1f;
		dpl = raw >> 45 & 3;
		code = (type & 0x18) == 0x18;
		conforming = (type & 0x1c) == 0x1c;
		ok = conforming || (dpl >= cpu->cpl && dpl >= (sel & 3u));
		if (in->sys == SYS_VERR)
			ok = ok && type & 0x10 && (!code || type & 2);
		else if (in->sys == SYS_VERW)
			ok = ok && type & 0x10 && !code && type & 2;
		else if (!(type & 0x10))
			ok = ok && (type == 2 || type == 9 || type == 0xb || (type == 0xc && in->sys == SYS_LAR));
		else
			ok = ok && (in->sys == SYS_LAR || in->sys == SYS_LSL);
	}
	if (ok && in->sys == SYS_LAR)
		write_gpr(cpu, insn_reg(in), in->opsize, raw >> 32 & 0xffff00);
	if (ok && in->sys == SYS_LSL) {
		uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));

		write_gpr(cpu, insn_reg(in), in->opsize, raw >> 55 & 1 ? (limit << 12 | 0xfff) : limit);
	}
	cpu->flags = (cpu->flags & ~(uint64_t)FLAG_ZF) | (ok ? FLAG_ZF : 0);
	return true;
}

bool load_far_segment(struct cpu *cpu, const struct insn *in)
{
	unsigned seg = in->map == 0 ? (in->opcode == 0xc4 ? SEG_ES : SEG_DS) :
		in->opcode == 0xb2 ? SEG_SS : in->opcode == 0xb4 ? SEG_FS : SEG_GS;
	uint8_t raw[10] = { 0 };
	uint64_t off = 0;
	uint16_t sel;

	if (!load_operand(cpu, in, raw, in->opsize + 2u))
		return false;
	copy_bytes(&off, raw, in->opsize);
	copy_bytes(&sel, raw + in->opsize, 2);
	if (!load_segment(cpu, seg, sel))
		return false;
	write_gpr(cpu, insn_reg(in), in->opsize, off);
	return true;
}
