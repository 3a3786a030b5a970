/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random user-mode code.  Half of it are random encodings: prefixes, opcode and
 * register fields by chance, the memory operand built to hit the data pages, and
 * Zydis to throw away what is no instruction or not allowed.  The other half are
 * templates for what chance does not find: stack runs, structure accesses,
 * loops, calls, strings, segment bases, self-modifying code.
 *
 * Registers keep roles (state.c): pointers and indices are rarely overwritten,
 * so that most accesses hit.  A register that is overwritten loses its role.
 */
#include "tests/diff/compare.h"

#include "base/checked.h"

#include <string.h>
#include <Zydis/Zydis.h>

#define TRIES 400
#define INSN_MAX 15

struct gen {
	struct rng r;
	struct item *item;
	const struct generate_options *options;
	bool code32;
	uint16_t pointers, indices;
	uint16_t locked;	/* registers that must not be written */
	unsigned depth;	/* of nested templates */
};

/* One instruction in the making. */
struct draft {
	uint8_t bytes[INSN_MAX + 8];
	unsigned len;
};

/* A memory operand: everything behind and around the reg field of ModRM. */
struct place {
	uint8_t seg;	/* prefix or 0 */
	bool addr32;	/* 67h */
	uint8_t x, b;	/* REX bits */
	uint8_t mod_rm;
	uint8_t tail[5];	/* SIB and displacement */
	unsigned ntail;
	bool rip;	/* the displacement leads to @target */
	uint64_t target;
};

static void put8(struct draft *d, unsigned v)
{
	if (d->len < sizeof(d->bytes))
		d->bytes[d->len++] = (uint8_t)v;
}

static void put32(struct draft *d, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		put8(d, v >> 8 * i);
}

static unsigned any_of(struct gen *g, uint16_t mask)
{
	unsigned n = (unsigned)__builtin_popcount(mask), k;

	if (!n)
		return RSP;
	k = rng_below(&g->r, n);
	for (unsigned i = 0;; i++)
		if (mask & 1u << i && k-- == 0)
			return i;
}

static uint16_t all_regs(const struct gen *g)
{
	return g->code32 ? 0xff : 0xffff;
}

/* A register without a role. */
static unsigned data_reg(struct gen *g)
{
	uint16_t mask = all_regs(g) & (uint16_t)~(g->pointers | g->indices | g->locked | 1u << RSP);

	return mask ? any_of(g, mask) : RAX;
}

static uint64_t cursor(const struct gen *g)
{
	return CODE_VA + g->item->off + g->item->len;
}

static bool full(const struct gen *g)
{
	return g->item->len > CODE_BYTES_MAX - 64 || g->item->off + g->item->len > 2 * PAGE - 32;
}

static void add(struct gen *g, const uint8_t *bytes, unsigned n)
{
	if (g->item->len + n > CODE_BYTES_MAX || g->item->off + g->item->len + n > 2 * PAGE - 1)
		return;
	memcpy(g->item->code + g->item->len, bytes, n);
	g->item->len += (uint16_t)n;
}

#define ADD(g, ...)                                                                                \
	do {                                                                                       \
		const uint8_t bytes_[] = { __VA_ARGS__ };                                          \
		add(g, bytes_, sizeof(bytes_));                                                    \
	} while (0)

/* --- Decoding --- */

/* Number of the general register that @reg is part of, or -1. */
static int gpr_number(ZydisRegister reg)
{
	ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (whole >= ZYDIS_REGISTER_RAX && whole <= ZYDIS_REGISTER_R15)
		return (int)(whole - ZYDIS_REGISTER_RAX);
	return -1;
}

/* What the two sides may answer differently, or what leaves the sandbox. */
static bool allowed_kind(const ZydisDecodedInstruction *in)
{
	switch ((int)in->meta.category) {
	case ZYDIS_CATEGORY_DECIMAL:	/* leave undefined flags that the translator does not imitate: see only_in_32() */
	case ZYDIS_CATEGORY_COND_BR:
	case ZYDIS_CATEGORY_UNCOND_BR:
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_RET:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
	case ZYDIS_CATEGORY_RDRAND:
	case ZYDIS_CATEGORY_RDSEED:
	case ZYDIS_CATEGORY_XSAVE:
	case ZYDIS_CATEGORY_XSAVEOPT:
	case ZYDIS_CATEGORY_VTX:
	case ZYDIS_CATEGORY_SGX:
	case ZYDIS_CATEGORY_AMX_TILE:
	case ZYDIS_CATEGORY_KEYLOCKER:
	case ZYDIS_CATEGORY_KEYLOCKER_WIDE:
	case ZYDIS_CATEGORY_UINTR:
	case ZYDIS_CATEGORY_CLFLUSHOPT:	/* a no-op in the guest, even where nothing is mapped */
	case ZYDIS_CATEGORY_CLWB:
		return false;
	default:
		break;
	}
	switch ((int)in->mnemonic) {
	case ZYDIS_MNEMONIC_CLFLUSH:
	case ZYDIS_MNEMONIC_CLDEMOTE:
	case ZYDIS_MNEMONIC_CPUID:
	case ZYDIS_MNEMONIC_RDTSC:
	case ZYDIS_MNEMONIC_RDTSCP:
	case ZYDIS_MNEMONIC_RDPID:
	case ZYDIS_MNEMONIC_RDPMC:
	case ZYDIS_MNEMONIC_RDPRU:
	case ZYDIS_MNEMONIC_XGETBV:
	case ZYDIS_MNEMONIC_SMSW:
	case ZYDIS_MNEMONIC_SGDT:
	case ZYDIS_MNEMONIC_SIDT:
	case ZYDIS_MNEMONIC_SLDT:
	case ZYDIS_MNEMONIC_STR:
	case ZYDIS_MNEMONIC_LAR:	/* descriptors of two kernels */
	case ZYDIS_MNEMONIC_LSL:
	case ZYDIS_MNEMONIC_VERR:
	case ZYDIS_MNEMONIC_VERW:
	case ZYDIS_MNEMONIC_LDS:
	case ZYDIS_MNEMONIC_LES:
	case ZYDIS_MNEMONIC_LFS:
	case ZYDIS_MNEMONIC_LGS:
	case ZYDIS_MNEMONIC_LSS:
	case ZYDIS_MNEMONIC_FXSAVE:	/* x87 instruction pointers are the host's */
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FXRSTOR:
	case ZYDIS_MNEMONIC_FXRSTOR64:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
	case ZYDIS_MNEMONIC_POPF:	/* could set TF; see templates */
	case ZYDIS_MNEMONIC_POPFD:
	case ZYDIS_MNEMONIC_POPFQ:
	case ZYDIS_MNEMONIC_PUSHF:	/* shows TF */
	case ZYDIS_MNEMONIC_PUSHFD:
	case ZYDIS_MNEMONIC_PUSHFQ:
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_WRFSBASE:
	case ZYDIS_MNEMONIC_WRGSBASE:
	case ZYDIS_MNEMONIC_WRPKRU:
	case ZYDIS_MNEMONIC_RDPKRU:
	case ZYDIS_MNEMONIC_MONITOR:
	case ZYDIS_MNEMONIC_MWAIT:
	case ZYDIS_MNEMONIC_MONITORX:
	case ZYDIS_MNEMONIC_MWAITX:
	case ZYDIS_MNEMONIC_MCOMMIT:
	case ZYDIS_MNEMONIC_VMMCALL:
	case ZYDIS_MNEMONIC_VMCALL:
	case ZYDIS_MNEMONIC_INT1:
	case ZYDIS_MNEMONIC_INTO:
	case ZYDIS_MNEMONIC_PTWRITE:
	case ZYDIS_MNEMONIC_MOVDIRI:	/* not offered to guests */
	case ZYDIS_MNEMONIC_MOVDIR64B:
	case ZYDIS_MNEMONIC_SERIALIZE:
	case ZYDIS_MNEMONIC_WRSSD:
	case ZYDIS_MNEMONIC_WRSSQ:
	case ZYDIS_MNEMONIC_INCSSPD:
	case ZYDIS_MNEMONIC_INCSSPQ:
	case ZYDIS_MNEMONIC_XTEST:
	case ZYDIS_MNEMONIC_UD0:
	case ZYDIS_MNEMONIC_UD1:
	case ZYDIS_MNEMONIC_UD2:
		return false;
	default:
		return true;
	}
}

static bool moves_segment(const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
	for (unsigned i = 0; i < in->operand_count; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && ops[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE &&
		    ZydisRegisterGetClass(ops[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return true;
	return false;
}

static bool good_address(struct gen *g, const ZydisDecodedOperand *op)
{
	int base = gpr_number(op->mem.base), index = gpr_number(op->mem.index);

	if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return true;
	if (base >= 0 && base != RSP && !((g->pointers | g->indices) & 1u << base))
		return false;
	return index < 0 || (g->indices & 1u << index);
}

/* Ends in #GP at CPL 3. */
static bool rarely_works(const ZydisDecodedInstruction *in)
{
	switch ((int)in->meta.category) {
	case ZYDIS_CATEGORY_SYSTEM:
	case ZYDIS_CATEGORY_IO:
	case ZYDIS_CATEGORY_IOSTRINGOP:
		return true;
	default:
		return in->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED || in->mnemonic == ZYDIS_MNEMONIC_CLI ||
		       in->mnemonic == ZYDIS_MNEMONIC_STI || (in->mnemonic == ZYDIS_MNEMONIC_MOV && in->raw.disp.size == 64);
	}
}

/* Decides whether the instruction fits in, and updates roles if so. */
static bool accept(struct gen *g, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
	uint16_t lost = 0;

	if (!allowed_kind(in) || moves_segment(in, ops))
		return false;
	if (in->meta.isa_set == ZYDIS_ISA_SET_SVM)
		return false;	/* a host may have it, guests have not */
	if (rarely_works(in) && !rng_chance(&g->r, 2))
		return false;
	for (unsigned i = 0; i < in->operand_count; i++) {
		const ZydisDecodedOperand *op = &ops[i];
		int r = -1;

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB ||	/* see gather() */
		     (g->code32 && (op->mem.segment == ZYDIS_REGISTER_FS || op->mem.segment == ZYDIS_REGISTER_GS ||
				     op->mem.segment == ZYDIS_REGISTER_CS))))
			return false;	/* in 32-bit code FS and GS are null, CS read-only: the translator does not look */
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			r = gpr_number(op->reg.value);
		else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && !good_address(g, op) && !rng_chance(&g->r, 2))
			return false;
		else if (op->type == ZYDIS_OPERAND_TYPE_MEMORY && in->encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
			 op->size == 128 && (op->mem.disp.value & 15 || op->mem.index) && !rng_chance(&g->r, 15))
			return false;	/* most of them want alignment */
		if (r < 0)
			continue;
		if (g->locked & 1u << r)
			return false;
		if (r == RSP && op->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && !rng_chance(&g->r, 2))
			return false;
		if ((g->pointers | g->indices) & 1u << r) {
			bool string = in->meta.category == ZYDIS_CATEGORY_STRINGOP;

			if (!string && !rng_chance(&g->r, 6))
				return false;
			if (!string)
				lost |= (uint16_t)(1u << r);
		}
	}
	g->pointers &= (uint16_t)~lost;
	g->indices &= (uint16_t)~lost;
	return true;
}

/* --- Memory operands --- */

static int32_t displacement(struct gen *g)
{
	switch (rng_below(&g->r, 12)) {
	case 0: return rng_range(&g->r, -4096, 4096);
	case 1: return rng_range(&g->r, -128, 127);
	case 2: return rng_range(&g->r, -512, 512);
	case 3: return 16 * rng_range(&g->r, -8, 8);
	case 4: return 0;
	case 5:
	case 6: return 8 * rng_range(&g->r, -4, 12);
	default: return rng_range(&g->r, -16, 48);
	}
}

static void place_disp(struct place *p, int32_t disp, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p->tail[p->ntail++] = (uint8_t)(disp >> 8 * i);
}

/* [base + index * scale + disp]; @base or @index may be -1. */
static struct place place_of(struct gen *g, int base, int index, unsigned scale, int32_t disp)
{
	struct place p = { 0 };
	bool sib = index >= 0 || base < 0 || (base & 7) == RSP || rng_chance(&g->r, 8);
	bool small = disp >= -128 && disp <= 127 && rng_chance(&g->r, 85);
	unsigned mod = base < 0 ? 0 : disp == 0 && (base & 7) != RBP && rng_chance(&g->r, 80) ? 0 : small ? 1 : 2;

	p.b = base >= 8;
	p.x = index >= 8;
	p.mod_rm = (uint8_t)(mod << 6 | (sib ? 4 : (unsigned)base & 7));
	if (sib)
		p.tail[p.ntail++] = (uint8_t)(scale << 6 | (index < 0 ? 4 : (unsigned)index & 7) << 3 |
					      (base < 0 ? 5 : (unsigned)base & 7));
	place_disp(&p, disp, base < 0 || mod == 2 ? 4 : mod);
	return p;
}

static uint64_t data_address(struct gen *g)
{
	if (rng_chance(&g->r, 70))
		return DATA_VA + (uint64_t)rng_range(&g->r, 1, 4) * PAGE + (uint64_t)(int64_t)rng_range(&g->r, -64, 32);
	if (rng_chance(&g->r, 20))
		return CODE_VA + PAGE + 3000 + rng_below(&g->r, 512);
	return DATA_VA + 64 + rng_below(&g->r, 4 * PAGE - 128);
}

static struct place any_place(struct gen *g)
{
	unsigned kind = rng_below(&g->r, 100);
	int base = (int)any_of(g, g->pointers), index = g->indices ? (int)any_of(g, g->indices) : -1;
	struct place p;

	if (!g->pointers || kind < 8) {
		p = place_of(g, RSP, rng_chance(&g->r, 20) ? index : -1, rng_below(&g->r, 4), displacement(g));
	} else if (kind < 70) {
		p = place_of(g, base, -1, 0, displacement(g));
	} else if (kind < 84) {
		p = place_of(g, base, index, rng_below(&g->r, 4), displacement(g));
	} else if (kind < 88) {
		p = place_of(g, -1, index, rng_below(&g->r, 4), (int32_t)data_address(g));
	} else if (kind < 90) {
		p = place_of(g, -1, -1, 0, (int32_t)data_address(g));
	} else if (kind < 94 && !g->code32) {
		p = place_of(g, rng_chance(&g->r, 50) ? index : -1, -1, 0, displacement(g) & 0xff);
		p.seg = rng_chance(&g->r, 50) ? 0x64 : 0x65;
	} else {
		p = (struct place){ .mod_rm = 5, .rip = !g->code32, .target = data_address(g) };
		place_disp(&p, (int32_t)p.target, 4);
	}
	if (rng_chance(&g->r, 4) && !g->code32)
		p.addr32 = true;
	return p;
}

static void put_place(struct draft *d, const struct place *p, unsigned reg)
{
	put8(d, p->mod_rm | (reg & 7) << 3);
	for (unsigned i = 0; i < p->ntail; i++)
		put8(d, p->tail[i]);
}

/* --- Finishing a draft --- */

/*
 * EVEX.X beside a general register, and W where 32-bit code has no 64-bit form:
 * processors do not agree, or not even with themselves, on what they do.
 */
static bool has_useless_bits(const struct gen *g, const ZydisDecodedInstruction *in, const ZydisDecodedOperand *ops)
{
	if (g->code32 && (in->mnemonic == ZYDIS_MNEMONIC_VPINSRD || in->mnemonic == ZYDIS_MNEMONIC_VPEXTRD))
		return in->raw.vex.W || in->raw.evex.W;
	if (in->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX || in->raw.modrm.mod != 3 || in->raw.evex.X)	/* stored inverted */
		return false;
	for (unsigned i = 0; i < in->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_number(ops[i].reg.value) >= 0)
			return true;
	return false;
}

/* Pads the draft with random immediates, decodes, filters, and adds it.  False when it did not fit in. */
static bool finish(struct gen *g, struct draft *d, const struct place *p)
{
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;

	for (unsigned i = 0; i < 8; i++)
		put8(d, rng_chance(&g->r, 30) ? rng_below(&g->r, 12) : (unsigned)rng_next(&g->r));
	if (d->len > INSN_MAX)
		d->len = INSN_MAX;
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(item_decoder(g->code32), d->bytes, d->len, &in, ops)))
		return false;
	if (g->options->supported && allowed_kind(&in) && in.meta.branch_type == ZYDIS_BRANCH_TYPE_NONE &&
	    !g->options->supported(d->bytes, in.length, g->code32) && !rng_chance(&g->r, 1))
		return false;
	if (has_useless_bits(g, &in, ops) || !accept(g, &in, ops))
		return false;
	if (p && p->rip && in.raw.disp.size == 32) {
		uint32_t rel = (uint32_t)(p->target - cursor(g) - in.length);

		memcpy(d->bytes + in.raw.disp.offset, &rel, 4);
	}
	add(g, d->bytes, in.length);
	return true;
}

/* --- Random encodings --- */

static void legacy_prefixes(struct gen *g, struct draft *d, const struct place *p)
{
	if (p && p->seg)
		put8(d, p->seg);
	else if (rng_chance(&g->r, 2))
		put8(d, g->code32 ? 0x3e : 0x2e);	/* CS cannot be written through in 32-bit code */
	if ((p && p->addr32) || rng_chance(&g->r, 1))
		put8(d, 0x67);
}

static void put_rm(struct gen *g, struct draft *d, const struct place *p)
{
	if (p)
		put_place(d, p, rng_below(&g->r, 8));
	else
		put8(d, 0xc0 | rng_below(&g->r, 64));
}

static bool legacy_insn(struct gen *g, unsigned map)
{
	struct place where = any_place(g), *p = rng_chance(&g->r, 55) ? &where : NULL;
	struct draft d = { 0 };

	legacy_prefixes(g, &d, p);
	if (rng_chance(&g->r, map == 0 ? 5 : 7) && p)
		put8(&d, 0xf0);
	switch (rng_below(&g->r, map == 0 ? 14 : 6)) {
	case 0: put8(&d, 0x66); break;
	case 1: put8(&d, 0x66); break;
	case 2: put8(&d, 0xf3); break;
	case 3: put8(&d, map == 0 ? 0x66 : 0xf2); break;
	case 4: if (rng_chance(&g->r, 10)) put8(&d, 0x66), put8(&d, 0xf2); break;
	default: break;
	}
	if (!g->code32 && (rng_chance(&g->r, 50) || (p && (p->x || p->b))))
		put8(&d, 0x40 | rng_below(&g->r, 4) << 2 |
		     (p ? (unsigned)p->x << 1 | p->b : rng_below(&g->r, 4)));
	if (map)
		put8(&d, 0x0f);
	if (map >= 2)
		put8(&d, map == 2 ? 0x38 : 0x3a);
	put8(&d, (unsigned)rng_next(&g->r));
	put_rm(g, &d, p);
	return finish(g, &d, p);
}

static bool x87_insn(struct gen *g)
{
	struct place where = any_place(g), *p = rng_chance(&g->r, 50) ? &where : NULL;
	struct draft d = { 0 };

	legacy_prefixes(g, &d, p);
	if (!g->code32 && p && (p->x || p->b))
		put8(&d, 0x40 | (unsigned)p->x << 1 | p->b);
	put8(&d, 0xd8 + rng_below(&g->r, 8));
	put_rm(g, &d, p);
	return finish(g, &d, p);
}

static bool vex_insn(struct gen *g)
{
	struct place where = any_place(g), *p = rng_chance(&g->r, 50) ? &where : NULL;
	unsigned map = 1 + rng_below(&g->r, 3), v = rng_chance(&g->r, 40) ? 0 : rng_below(&g->r, g->code32 ? 8 : 16);
	unsigned w = rng_below(&g->r, 2), l = rng_below(&g->r, 2), pp = rng_below(&g->r, 4);
	unsigned r = g->code32 ? 0 : rng_below(&g->r, 2), x = p ? p->x : 0;
	unsigned b = p ? p->b : g->code32 ? 0 : rng_below(&g->r, 2);
	struct draft d = { 0 };

	legacy_prefixes(g, &d, p);
	if (map == 1 && !w && !x && !b && rng_chance(&g->r, 70)) {
		put8(&d, 0xc5);
		put8(&d, (r ^ 1) << 7 | (v ^ 15) << 3 | l << 2 | pp);
	} else {
		put8(&d, 0xc4);
		put8(&d, (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | map);
		put8(&d, w << 7 | (v ^ 15) << 3 | l << 2 | pp);
	}
	put8(&d, (unsigned)rng_next(&g->r));
	put_rm(g, &d, p);
	return finish(g, &d, p);
}

static bool evex_insn(struct gen *g)
{
	static const uint8_t maps[] = { 1, 2, 3, 1, 2, 2 };
	struct place where = any_place(g), *p = rng_chance(&g->r, 55) ? &where : NULL;
	unsigned v = rng_chance(&g->r, 35) ? 0 : rng_below(&g->r, g->code32 ? 8 : 32);
	unsigned r = g->code32 ? 0 : rng_below(&g->r, 4), x = p ? p->x : g->code32 ? 0 : rng_below(&g->r, 2);
	unsigned b = p ? p->b : g->code32 ? 0 : rng_below(&g->r, 2), mask = rng_chance(&g->r, 40) ? 0 : rng_below(&g->r, 8);
	struct draft d = { 0 };

	if (p && where.ntail && (where.mod_rm & 0xc0) == 0x40)	/* scaled by up to 64 */
		where.tail[where.ntail - 1] = (uint8_t)rng_range(&g->r, -3, 3);
	legacy_prefixes(g, &d, p);
	put8(&d, 0x62);
	put8(&d, (~r & 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | (~r & 2) << 3 | maps[rng_below(&g->r, ARRAY_SIZE(maps))]);
	put8(&d, rng_below(&g->r, 2) << 7 | (~v & 15) << 3 | 4 | rng_below(&g->r, 4));
	put8(&d, (mask ? rng_below(&g->r, 2) << 7 : 0) | rng_below(&g->r, 3) << 5 | (rng_chance(&g->r, 20) ? 1u << 4 : 0) |
	     (~v & 16) >> 1 | mask);
	put8(&d, (unsigned)rng_next(&g->r));
	put_rm(g, &d, p);
	return finish(g, &d, p);
}

static void random_insn(struct gen *g)
{
	for (unsigned i = 0; i < TRIES; i++) {
		unsigned kind = rng_below(&g->r, 100);
		bool ok = kind < 34 ? legacy_insn(g, 0) : kind < 62 ? legacy_insn(g, 1) :
			kind < 68 ? legacy_insn(g, 2) : kind < 71 ? legacy_insn(g, 3) :
			kind < 78 ? x87_insn(g) : kind < 90 ? vex_insn(g) : evex_insn(g);

		if (ok)
			return;
	}
}

/* --- Templates --- */

/* REX for 64-bit operands with @reg in the reg field and @rm in the r/m field; nothing in 32-bit code. */
static void put_rexw(struct gen *g, struct draft *d, unsigned reg, unsigned rm)
{
	if (!g->code32)
		put8(d, 0x48 | (reg >> 3) << 2 | rm >> 3);
}

static void add_draft(struct gen *g, const struct draft *d)
{
	add(g, d->bytes, d->len);
}

static void mov_imm(struct gen *g, unsigned reg, uint32_t imm)
{
	struct draft d = { 0 };

	if (reg >= 8)
		put8(&d, 0x41);
	put8(&d, 0xb8 | (reg & 7));
	put32(&d, imm);
	add_draft(g, &d);
	g->pointers &= (uint16_t)~(1u << reg);
	g->indices &= (uint16_t)~(1u << reg);
}

/* op reg, [place] or the other way, with legacy opcode bytes of up to two bytes. */
static void mem_op(struct gen *g, struct place p, unsigned size, unsigned escape, unsigned opcode, unsigned reg)
{
	struct draft d = { 0 };
	unsigned rex = (size == 8) << 3 | (reg >> 3) << 2 | (unsigned)p.x << 1 | p.b;

	legacy_prefixes(g, &d, &p);
	if (size == 2)
		put8(&d, 0x66);
	if (!g->code32 && (rex || (size == 1 && reg >= 4)))
		put8(&d, 0x40 | rex);
	if (escape)
		put8(&d, escape);
	put8(&d, opcode);
	put_place(&d, &p, reg);
	(void)finish(g, &d, &p);
}

static unsigned any_size(struct gen *g)
{
	unsigned size = 1u << rng_below(&g->r, g->code32 ? 3 : 4);

	return size;
}

/* Registers pushed and popped, some memory and immediates among them. */
static void stack_run(struct gen *g)
{
	unsigned n = 2 + (unsigned)rng_below(&g->r, 8), reg;
	bool pops = rng_chance(&g->r, 40);

	while (n-- > 0 && !full(g)) {
		struct draft d = { 0 };
		struct place p = any_place(g);
		unsigned kind = rng_below(&g->r, 20);

		if (rng_chance(&g->r, 6))
			put8(&d, 0x66);
		if (rng_chance(&g->r, 15))
			pops = !pops;
		if (kind == 0 && !pops) {
			put8(&d, 0x6a);
			put8(&d, (unsigned)rng_next(&g->r));
			add_draft(g, &d);
		} else if (kind == 1 && !pops) {
			put8(&d, 0x68);
			(void)finish(g, &d, NULL);
		} else if (kind <= 4) {
			if (pops && rng_chance(&g->r, 40))
				p = place_of(g, RSP, -1, 0, 8 * rng_range(&g->r, -2, 3));
			legacy_prefixes(g, &d, &p);
			if (!g->code32 && (p.x || p.b))
				put8(&d, 0x40 | (unsigned)p.x << 1 | p.b);
			put8(&d, pops ? 0x8f : 0xff);
			put_place(&d, &p, pops ? 0 : 6);
			(void)finish(g, &d, &p);
		} else {
			reg = pops ? data_reg(g) : any_of(g, all_regs(g));
			if (reg >= 8)
				put8(&d, 0x41);
			put8(&d, (pops ? 0x58 : 0x50) | (reg & 7));
			add_draft(g, &d);
		}
	}
}

/* A pointer moved a little: ADD, SUB, LEA, INC or DEC. */
static void move_pointer(struct gen *g, unsigned reg)
{
	struct draft d = { 0 };
	int by = rng_chance(&g->r, 70) ? 8 * rng_range(&g->r, -3, 4) : rng_range(&g->r, -40, 40);

	if (g->locked & 1u << reg)
		return;
	put_rexw(g, &d, 0, reg);
	switch (rng_below(&g->r, 5)) {
	case 0:
	case 1:
		put8(&d, 0x83);
		put8(&d, 0xc0 | (rng_chance(&g->r, 50) ? 5u << 3 : 0) | (reg & 7));
		put8(&d, (unsigned)by);
		break;
	case 2:
		put8(&d, 0x81);
		put8(&d, 0xc0 | (reg & 7));
		put32(&d, (uint32_t)by);
		break;
	case 3:
		put8(&d, 0xff);
		put8(&d, 0xc0 | rng_below(&g->r, 2) << 3 | (reg & 7));
		break;
	default: {
		struct place p = place_of(g, (int)reg, -1, 0, by);

		d.len = 0;
		if (!g->code32)
			put8(&d, 0x48 | (reg >> 3) << 2 | p.b);
		put8(&d, 0x8d);
		put_place(&d, &p, reg);
		break;
	}
	}
	add_draft(g, &d);
}

/* Loads, stores and arithmetic through one base register, as compilers emit for structures. */
static void struct_run(struct gen *g)
{
	static const uint8_t ops[] = { 0x8b, 0x89, 0x03, 0x01, 0x2b, 0x29, 0x33, 0x31, 0x3b, 0x39, 0x85, 0x87, 0x13, 0x11 };
	unsigned base = rng_chance(&g->r, 15) ? RSP : any_of(g, g->pointers), n = 2 + rng_below(&g->r, 7);
	unsigned span = rng_chance(&g->r, 20) ? 700 : 64;

	while (n-- > 0 && !full(g)) {
		unsigned size = any_size(g), reg = data_reg(g);
		struct place p = place_of(g, (int)base, -1, 0, rng_range(&g->r, -8, (int)span));
		unsigned op = ops[rng_below(&g->r, ARRAY_SIZE(ops))];

		switch (rng_below(&g->r, 12)) {
		case 0: mem_op(g, p, size, 0x0f, rng_chance(&g->r, 50) ? 0xb6 : 0xbf, reg); break;
		case 1: mem_op(g, p, 4, 0x0f, rng_chance(&g->r, 50) ? 0x10 : 0x11, rng_below(&g->r, 8)); break;
		case 2: mem_op(g, p, size, 0, size == 1 ? 0x80 : 0x83, rng_below(&g->r, 8)); break;
		case 3: mem_op(g, p, size, 0, size == 1 ? 0xc6 : 0xc7, 0); break;
		case 4: move_pointer(g, base); break;
		case 5: random_insn(g); break;
		default: mem_op(g, p, size, 0, size == 1 ? op & ~1u : op, reg); break;
		}
		if (!(g->pointers & 1u << base) && base != RSP)
			return;
	}
}

static void guarded_divide(struct gen *g)
{
	unsigned reg = data_reg(g);
	struct draft d = { 0 };

	if ((g->locked | g->pointers | g->indices) & (1u << RAX | 1u << RDX) || reg == RAX || reg == RDX)
		return;
	if (rng_chance(&g->r, 60))
		ADD(g, 0x31, 0xd2);	/* xor edx, edx */
	else
		ADD(g, 0x99);	/* cdq */
	put_rexw(g, &d, 0, reg);
	put8(&d, 0x83), put8(&d, 0xc8 | (reg & 7)), put8(&d, 1 + rng_below(&g->r, 126));	/* or reg, imm */
	add_draft(g, &d);
	d.len = 0;
	if (rng_chance(&g->r, 50) || g->code32) {
		if (reg >= 8)
			put8(&d, 0x41);
	} else {
		put_rexw(g, &d, 0, reg);
	}
	put8(&d, 0xf7), put8(&d, 0xc0 | (6 + rng_below(&g->r, 2)) << 3 | (reg & 7));
	add_draft(g, &d);
}

static void string_op(struct gen *g)
{
	static const uint8_t ops[] = { 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf };
	bool rep = rng_chance(&g->r, 75), back = rng_chance(&g->r, 30), fits;
	struct draft d = { 0 };

	fits = (g->pointers & (1u << RSI | 1u << RDI)) == (1u << RSI | 1u << RDI);
	if ((!fits && !rng_chance(&g->r, 10)) || g->locked & (1u << RCX | 1u << RSI | 1u << RDI))
		return;
	if (rep && !rng_chance(&g->r, 5))
		mov_imm(g, RCX, rng_chance(&g->r, 80) ? rng_below(&g->r, 40) : rng_below(&g->r, 2000));
	if (back)
		ADD(g, 0xfd);
	if (rng_chance(&g->r, 4) && !g->code32)
		put8(&d, rng_chance(&g->r, 50) ? 0x64 : 0x65);
	if (rng_chance(&g->r, 6) && !g->code32)
		put8(&d, 0x67);
	if (rng_chance(&g->r, 25))
		put8(&d, 0x66);
	if (rep)
		put8(&d, rng_chance(&g->r, 70) ? 0xf3 : 0xf2);
	if (!g->code32 && rng_chance(&g->r, 30))
		put8(&d, 0x48);
	put8(&d, ops[rng_below(&g->r, ARRAY_SIZE(ops))]);
	add_draft(g, &d);
	if (back && rng_chance(&g->r, 80))
		ADD(g, 0xfc);
}

static void step(struct gen *g);

static void some_steps(struct gen *g, unsigned most)
{
	unsigned n = 1 + rng_below(&g->r, most);

	g->depth++;
	while (n-- > 0 && !full(g))
		step(g);
	g->depth--;
}

/* Bytes from the end of a 4-byte or 1-byte field at @at to the end of the code. */
static void patch_rel(struct gen *g, unsigned at, unsigned bytes)
{
	uint32_t rel = g->item->len - at - bytes;

	memcpy(g->item->code + at, &rel, bytes);
}

static void forward_jump(struct gen *g)
{
	unsigned kind = rng_below(&g->r, 12), at, before = g->item->len;
	bool near = rng_chance(&g->r, 30);

	if (kind == 0 && !g->code32 && rng_chance(&g->r, 30))
		ADD(g, 0x67, 0xe3, 0);
	else if (kind == 0)
		ADD(g, 0xe3, 0);
	else if (kind == 1 && near)
		ADD(g, 0xe9, 0, 0, 0, 0);
	else if (kind == 1)
		ADD(g, 0xeb, 0);
	else if (near)
		ADD(g, 0x0f, (uint8_t)(0x80 | rng_below(&g->r, 16)), 0, 0, 0, 0);
	else
		ADD(g, (uint8_t)(0x70 | rng_below(&g->r, 16)), 0);
	at = g->item->len - (near && kind ? 4u : 1u);
	if (g->item->len == before)
		return;
	some_steps(g, 3);
	if (g->item->len - at - 1 > 127 && !(near && kind))
		g->item->len = (uint16_t)before;	/* too far: as if it had never been */
	else
		patch_rel(g, at, near && kind ? 4 : 1);
}

/* Runs a few steps 1 to 6 times. */
static void short_loop(struct gen *g)
{
	unsigned before, back, reg = rng_chance(&g->r, 50) ? RCX : data_reg(g), kind = rng_below(&g->r, 3);
	uint16_t locked = g->locked;

	if (g->locked & 1u << reg || reg == RSP || g->depth > 1)
		return;
	mov_imm(g, reg, 1 + rng_below(&g->r, 6));
	before = g->item->len;
	g->locked |= (uint16_t)(1u << reg);
	some_steps(g, 3);
	g->locked = locked;
	back = g->item->len - before;
	if (reg == RCX && kind && back < 120) {
		ADD(g, (uint8_t)(0xe0 + rng_below(&g->r, 3)), (uint8_t)-(back + 2));
	} else {
		struct draft d = { 0 };

		if (reg >= 8)
			put8(&d, 0x41);
		put8(&d, 0xff), put8(&d, 0xc8 | (reg & 7));	/* dec */
		put8(&d, 0x0f), put8(&d, 0x85);	/* jnz */
		put32(&d, (uint32_t)-(int32_t)(back + d.len + 4));
		add_draft(g, &d);
	}
}

/* add, sub, lea or inc of a 64-bit register. */
static void walk(struct gen *g, unsigned reg, int step)
{
	struct draft d = { 0 };

	put_rexw(g, &d, 0, reg);
	if (step == 1 || step == -1) {
		put8(&d, 0xff), put8(&d, (step == 1 ? 0xc0 : 0xc8) | (reg & 7));
	} else if (rng_chance(&g->r, 50)) {
		put8(&d, 0x83), put8(&d, 0xc0 | (reg & 7)), put8(&d, (uint8_t)step);
	} else {
		put8(&d, 0x83), put8(&d, 0xe8 | (reg & 7)), put8(&d, (uint8_t)-step);
	}
	add_draft(g, &d);
}

/* Accesses that move through pages by even steps, as compilers make of loops over arrays. */
static void walking_loop(struct gen *g)
{
	static const int steps[] = { 1, 2, 4, 8, 16, 24, 32, 64, 100 };
	static const uint8_t ops[] = { 0x8b, 0x89, 0x03, 0x01, 0x33, 0x29, 0x3b, 0x87 };
	unsigned count = data_reg(g), index = data_reg(g), n = 1 + rng_below(&g->r, 5), before;
	bool by_index = rng_chance(&g->r, 40) && index != count && index != RSP, twice = rng_chance(&g->r, 50);
	unsigned first = any_of(g, g->pointers), second = any_of(g, g->pointers);
	int step = steps[rng_below(&g->r, ARRAY_SIZE(steps))] * (rng_chance(&g->r, 30) ? -1 : 1);
	uint16_t locked = g->locked, moving = (uint16_t)(1u << first | (twice ? 1u << second : 0));
	struct draft d = { 0 };

	if (g->code32 || !g->pointers || count == RSP || g->locked & (1u << count | 1u << index | moving) || g->depth > 0)
		return;
	mov_imm(g, count, 1 + rng_below(&g->r, rng_chance(&g->r, 30) ? 500 : 12));
	if (by_index)
		mov_imm(g, index, 0);
	before = g->item->len;
	g->locked |= (uint16_t)(1u << count | (by_index ? 1u << index : 0) | moving);
	for (unsigned k = 0; k < n; k++) {
		unsigned base = rng_chance(&g->r, 50) ? first : rng_chance(&g->r, 80) ? second : RSP;
		struct place p = place_of(g, (int)base, by_index && rng_chance(&g->r, 70) ? (int)index : -1, 0,
					  rng_range(&g->r, -8, 64));
		unsigned size = any_size(g), op = ops[rng_below(&g->r, ARRAY_SIZE(ops))], reg = data_reg(g);

		if (by_index && k == n / 2)
			walk(g, index, step);
		if (rng_chance(&g->r, 15))
			random_insn(g);
		else if (rng_chance(&g->r, 30))
			mem_op(g, p, 4, 0x0f, rng_chance(&g->r, 50) ? 0x10 : 0x11, rng_below(&g->r, 8));
		else
			mem_op(g, p, size, 0, size == 1 ? op & ~1u : op, reg);
	}
	if (!by_index) {
		walk(g, first, step);
		if (twice && second != first)
			walk(g, second, rng_chance(&g->r, 50) ? step : 8);
	}
	g->locked = locked;
	put_rexw(g, &d, 0, count);
	put8(&d, 0xff), put8(&d, 0xc8 | (count & 7));	/* dec */
	put8(&d, 0x0f), put8(&d, 0x85);	/* jnz */
	put32(&d, (uint32_t)-(int32_t)(g->item->len - before + d.len + 4));
	add_draft(g, &d);
	if (!by_index)	/* they may lead anywhere now */
		g->pointers &= (uint16_t)~moving;
}

/* call f; jmp over; f: ...; ret; over: */
static void call_ret(struct gen *g)
{
	unsigned call, jump, reg = data_reg(g), kind = rng_below(&g->r, 4);

	if (g->depth > 1 || g->item->len > CODE_BYTES_MAX - 140)
		return;
	if (kind == 0 && !g->code32 && reg != RAX) {	/* lea reg, [rip + f]; call reg */
		ADD(g, (uint8_t)(0x48 | (reg >> 3) << 2), 0x8d, (uint8_t)(5 | (reg & 7) << 3), 0, 0, 0, 0);
		call = g->item->len - 4u;
		if (reg >= 8)
			ADD(g, 0x41);
		ADD(g, 0xff, (uint8_t)(0xd0 | (reg & 7)));
	} else {
		ADD(g, 0xe8, 0, 0, 0, 0);
		call = g->item->len - 4u;
	}
	ADD(g, 0xe9, 0, 0, 0, 0);
	jump = g->item->len - 4u;
	patch_rel(g, call, 4);
	g->locked |= 1u << RSP;
	for (unsigned n = rng_below(&g->r, 3); n > 0; n--)
		random_insn(g);
	g->locked &= (uint16_t)~(1u << RSP);
	if (kind == 1)
		ADD(g, 0xc2, (uint8_t)(8 * rng_below(&g->r, 3)), 0);
	else if (kind == 2)
		ADD(g, 0xf3, 0xc3);
	else
		ADD(g, 0xc3);
	patch_rel(g, jump, 4);
}

static void frame(struct gen *g)
{
	uint16_t was = g->pointers & (1u << RBP);

	if ((g->locked | g->indices) & (1u << RBP) || g->depth > 1)
		return;
	if (rng_chance(&g->r, 40))
		ADD(g, 0xc8, (uint8_t)(8 * rng_below(&g->r, 16)), 0, (uint8_t)(was && rng_chance(&g->r, 30) ? rng_below(&g->r, 4) : 0));
	else if (g->code32)
		ADD(g, 0x55, 0x89, 0xe5, 0x83, 0xec, (uint8_t)(8 * rng_below(&g->r, 8)));
	else
		ADD(g, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, (uint8_t)(8 * rng_below(&g->r, 8)));
	g->pointers |= 1u << RBP;
	g->locked |= 1u << RBP;
	some_steps(g, 3);
	g->locked &= (uint16_t)~(1u << RBP);
	ADD(g, 0xc9);
	g->pointers = (uint16_t)((g->pointers & ~(1u << RBP)) | was);
}

static void segment_base(struct gen *g)
{
	unsigned reg = rng_chance(&g->r, 50) ? any_of(g, g->pointers) : data_reg(g), ext = rng_below(&g->r, 4);

	if (g->code32)
		return;
	if (ext >= 2 && !(g->pointers & 1u << reg))
		ext -= 2;
	if (ext < 2)
		reg = data_reg(g);
	ADD(g, 0xf3, (uint8_t)((rng_chance(&g->r, 80) ? 0x48 : 0x40) | reg >> 3), 0x0f, 0xae, (uint8_t)(0xc0 | ext << 3 | (reg & 7)));
}

/* BT and friends with a register offset that reaches other words. */
static void bit_string(struct gen *g)
{
	static const uint8_t ops[] = { 0xa3, 0xab, 0xb3, 0xbb };
	unsigned reg = data_reg(g);

	if (g->locked & 1u << reg)
		return;
	mov_imm(g, reg, (uint32_t)rng_range(&g->r, -2000, 2000));
	if (!g->code32 && rng_chance(&g->r, 60))
		ADD(g, (uint8_t)(0x48 | (reg >> 3) << 2 | reg >> 3), 0x63, (uint8_t)(0xc0 | (reg & 7) << 3 | (reg & 7)));
	mem_op(g, any_place(g), 2u << rng_below(&g->r, g->code32 ? 2 : 3), 0x0f, ops[rng_below(&g->r, 4)], reg);
}

static void absolute_move(struct gen *g)
{
	uint64_t at = rng_chance(&g->r, 30) && !g->code32 ? HIGH_VA + 256 + rng_below(&g->r, 7000) : data_address(g);
	struct draft d = { 0 };

	if ((g->locked | g->pointers | g->indices) & 1u << RAX)
		return;
	if (rng_chance(&g->r, 20))
		put8(&d, 0x66);
	if (!g->code32 && rng_chance(&g->r, 30))
		put8(&d, 0x48);
	put8(&d, 0xa0 + rng_below(&g->r, 4));
	put32(&d, (uint32_t)at);
	if (!g->code32)
		put32(&d, (uint32_t)(at >> 32));
	add_draft(g, &d);
}

static void flags_insn(struct gen *g)
{
	switch (rng_below(&g->r, 4)) {
	case 0:	/* push imm; popf: arithmetic flags and DF, sometimes */
		ADD(g, 0x68, (uint8_t)(2 | (rng_next(&g->r) & 0xd5)), (uint8_t)(2 | (rng_next(&g->r) & 8)), 0, 0);
		ADD(g, 0x9d);
		break;
	case 1:	/* pushf; andl [rsp], without TF; popf */
		ADD(g, 0x9c);
		ADD(g, 0x81, 0x24, 0x24, 0xd7, 0x0e, 0, 0);
		ADD(g, 0x9d);
		break;
	case 2:
		ADD(g, 0x9f);
		break;
	default:
		ADD(g, 0x9e);
		break;
	}
}

/* Stores into the immediate of an instruction that follows closely. */
static void self_modify(struct gen *g)
{
	unsigned reg = data_reg(g), at, gap;
	uint32_t rel;

	if (g->code32 || g->locked & 1u << reg)
		return;
	ADD(g, 0xc6, 0x05, 0, 0, 0, 0, (uint8_t)rng_next(&g->r));	/* mov byte [rip + rel], imm */
	at = g->item->len;
	for (gap = rng_below(&g->r, 3); gap > 0; gap--)
		random_insn(g);
	rel = g->item->len - at + (reg >= 8) + 1u + rng_below(&g->r, 4);
	mov_imm(g, reg, (uint32_t)rng_next(&g->r));
	memcpy(g->item->code + at - 5, &rel, 4);
}

static void indirect_jump(struct gen *g)
{
	unsigned reg = data_reg(g), lea;

	if (g->code32 || g->locked & 1u << reg || reg == RAX)
		return;
	ADD(g, (uint8_t)(0x48 | (reg >> 3) << 2), 0x8d, (uint8_t)(5 | (reg & 7) << 3), 0, 0, 0, 0);
	lea = g->item->len - 4u;
	if (rng_chance(&g->r, 50)) {
		if (reg >= 8)
			ADD(g, 0x41);
		ADD(g, 0xff, (uint8_t)(0xe0 | (reg & 7)));
	} else {	/* push reg; ret */
		if (reg >= 8)
			ADD(g, 0x41);
		ADD(g, (uint8_t)(0x50 | (reg & 7)), 0xc3);
	}
	random_insn(g);
	patch_rel(g, lea, 4);
}

static void only_in_32(struct gen *g)
{
	static const uint8_t ops[] = { 0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5, 0xd6, 0x60, 0x61 };
	unsigned op = ops[rng_below(&g->r, ARRAY_SIZE(ops))];

	if (!g->code32)
		return;
	if ((g->locked | g->pointers | g->indices) & 1u << RAX && op != 0x60)
		return;
	if (op == 0x61) {	/* popa changes everything: pair it */
		ADD(g, 0x60);
		some_steps(g, 2);
		ADD(g, 0x61);
	} else if (op == 0xd4 || op == 0xd5) {
		ADD(g, (uint8_t)op, (uint8_t)(1 + rng_below(&g->r, 20)), 0x3c, 0x55);	/* cmp al defines all flags */
	} else if (op == 0x60 || op == 0xd6) {
		ADD(g, (uint8_t)op);
	} else {
		ADD(g, (uint8_t)op, 0x3c, 0x55);
	}
}

/* Makes small indices in a vector register, then gathers through them. */
static void gather(struct gen *g)
{
	unsigned base = any_of(g, g->pointers), wide = rng_below(&g->r, 2), l = rng_below(&g->r, 2);
	unsigned index = rng_below(&g->r, 8), dst = (index + 1) & 7, mask = (index + 2) & 7;
	unsigned op = 0x90 | rng_below(&g->r, 2) << 1 | wide, sib = rng_below(&g->r, 4) << 6 | index << 3 | (base & 7);
	unsigned w = rng_below(&g->r, 2) << 7, b = base < 8;

	if (!g->pointers)
		return;
	ADD(g, 0xc5, (uint8_t)(0x81 | (~index & 7) << 3 | 0x40 | l << 2), 0x72 + (uint8_t)wide, (uint8_t)(0xd0 | index),
	    (uint8_t)(wide ? 52 + rng_below(&g->r, 12) : 20 + rng_below(&g->r, 12)));	/* vpsrld or vpsrlq */
	if (rng_chance(&g->r, 50))
		ADD(g, 0xc4, (uint8_t)(0xc2 | b << 5), (uint8_t)(w | (mask ^ 15) << 3 | l << 2 | 1), (uint8_t)op,
		    (uint8_t)(0x44 | dst << 3), (uint8_t)sib, (uint8_t)rng_next(&g->r));
	else if (diff_xcr0 & 0xe0)
		ADD(g, 0x62, (uint8_t)(0xd2 | b << 5), (uint8_t)(w | 0x7d), (uint8_t)(rng_below(&g->r, 3) << 5 | 8 | (1 + rng_below(&g->r, 7))),
		    (uint8_t)(rng_chance(&g->r, 30) ? op | 0x30 : op) /* scatter */, (uint8_t)(0x44 | dst << 3), (uint8_t)sib,
		    (uint8_t)rng_range(&g->r, -4, 4));
}

static void step(struct gen *g)
{
	unsigned kind = rng_below(&g->r, 100);

	if (g->options->gather && rng_chance(&g->r, 20))
		gather(g);
	else if (kind < 50)
		random_insn(g);
	else if (kind < 58)
		stack_run(g);
	else if (kind < 70)
		struct_run(g);
	else if (kind < 72)
		guarded_divide(g);
	else if (kind < 76)
		string_op(g);
	else if (kind < 83 && g->depth < 2)
		forward_jump(g);
	else if (kind < 85)
		walking_loop(g);
	else if (kind < 87)
		short_loop(g);
	else if (kind < 89)
		call_ret(g);
	else if (kind < 90)
		frame(g);
	else if (kind < 91)
		segment_base(g);
	else if (kind < 93)
		bit_string(g);
	else if (kind < 94)
		absolute_move(g);
	else if (kind < 95)
		flags_insn(g);
	else if (kind < 96)
		self_modify(g);
	else if (kind < 97)
		indirect_jump(g);
	else if (kind < 98)
		only_in_32(g);
	else if (g->pointers)
		move_pointer(g, any_of(g, g->pointers));
}

void generate(struct item *item, const struct generate_options *options)
{
	struct gen g = { .r = { item->seed ^ 0x67656e ^ (item->code32 ? 1ull << 63 : 0) }, .item = item, .options = options,
			 .code32 = item->code32 };
	struct roles roles;
	unsigned n = 3 + rng_below(&g.r, 16);

	state_roles(item->seed, item->code32, &roles);
	g.pointers = roles.pointers;
	g.indices = roles.indices;
	item->len = 0;
	switch (rng_below(&g.r, 6)) {
	case 0: item->off = (uint16_t)(PAGE - 1 - rng_below(&g.r, 80)); break;
	case 1: item->off = (uint16_t)rng_below(&g.r, 2 * PAGE - CODE_BYTES_MAX); break;
	case 2: item->off = (uint16_t)(2 * PAGE - 8 - rng_below(&g.r, 64)); break;
	default: item->off = (uint16_t)(64 * rng_below(&g.r, 32)); break;
	}
	if (item->off > 2 * PAGE - 64)
		n = 3;
	while (n-- > 0 && !full(&g))
		step(&g);
}
