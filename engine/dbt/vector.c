/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector instructions whose memory operand is not one stretch of bytes: gathers
 * and scatters are done element by element here; masked operands only have
 * their selected bytes named for slow.c.
 *
 * Vector registers are read and written in the XSAVE image that cpu_heavy()
 * makes, in the standard format.  Source: SDM vol. 1, 13.4 and 13.5; vol. 2,
 * VGATHERDPS and following.
 */
#include "engine/dbt/run.h"

#define XSAVE_MMX 32u	/* ST0/MM0 in the legacy region */
#define XSAVE_SSE 160u	/* XMM0 in the legacy region */
#define XSAVE_BV 512u	/* XSTATE_BV in the header */
#define COMPONENT_YMM 2u
#define COMPONENT_K 5u
#define COMPONENT_ZMM_HI 6u
#define COMPONENT_HI16 7u

struct vector {
	uint8_t b[64];
};

static uint32_t component_offset(unsigned component)
{
	uint32_t a = 0xd, b, c = component, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b;
}

static void mark_in_use(struct cpu *cpu, unsigned component)
{
	uint64_t bv;

	copy_bytes(&bv, cpu->xsave + XSAVE_BV, 8);
	bv |= 1ull << component;
	copy_bytes(cpu->xsave + XSAVE_BV, &bv, 8);
}

/* Moves @n bytes between a component of the image and @buf. */
static void move_component(struct cpu *cpu, unsigned component, uint32_t off, void *buf, unsigned n, bool write)
{
	uint8_t *at = cpu->xsave + component_offset(component) + off;

	if (!(cpu->xcr0_host >> component & 1)) {
		if (!write)
			zero_bytes(buf, n);
		return;
	}
	if (write) {
		copy_bytes(at, buf, n);
		mark_in_use(cpu, component);
	} else {
		copy_bytes(buf, at, n);
	}
}

static void move_vector(struct cpu *cpu, unsigned reg, struct vector *v, bool write)
{
	if (reg >= 16) {
		move_component(cpu, COMPONENT_HI16, (reg - 16) * 64, v->b, 64, write);
		return;
	}
	if (write) {
		copy_bytes(cpu->xsave + XSAVE_SSE + 16 * reg, v->b, 16);
		mark_in_use(cpu, 1);
	} else {
		copy_bytes(v->b, cpu->xsave + XSAVE_SSE + 16 * reg, 16);
	}
	move_component(cpu, COMPONENT_YMM, 16 * reg, v->b + 16, 16, write);
	move_component(cpu, COMPONENT_ZMM_HI, 32 * reg, v->b + 32, 32, write);
}

/* ------------------------------------------------------ fields of encodings */

static const uint8_t *prefix(const struct insn *in)
{
	return in->bytes + in->prefix_len;
}

static unsigned vector_reg(const struct insn *in)
{
	const uint8_t *p = prefix(in);
	unsigned reg = (in->modrm >> 3 & 7) | (p[1] & 0x80 ? 0 : 8);

	return in->enc == ENC_EVEX && !(p[1] & 0x10) ? reg | 16 : reg;
}

static unsigned vector_vvvv(const struct insn *in)
{
	const uint8_t *p = prefix(in);

	return ~(in->enc == ENC_EVEX || p[0] == 0xc4 ? p[2] : p[1]) >> 3 & 15;
}

static unsigned vector_index(const struct insn *in)
{
	const uint8_t *p = prefix(in);
	unsigned reg = (in->bytes[in->sib_off] >> 3 & 7) | (p[1] & 0x40 ? 0 : 8);

	return in->enc == ENC_EVEX && !(p[3] & 8) ? reg | 16 : reg;
}

static unsigned vector_length(const struct insn *in)
{
	const uint8_t *p = prefix(in);

	return 16u << (in->enc == ENC_EVEX ? p[3] >> 5 & 3 : p[2] >> 2 & 1);
}

/* ------------------------------------------------------------------- masks */

struct mask_job {
	const struct insn *in;
	uint64_t k;
	struct vector v;
};

/* MASKMOVQ names an MMX register, MASKMOVDQU (66h, or VEX) an XMM register. */
static void read_byte_mask(struct cpu *cpu, const struct insn *in, struct vector *v)
{
	unsigned reg = insn_rm(in);
	bool mmx = in->enc == ENC_LEGACY;

	for (unsigned k = 0; k < in->prefix_len; k++)
		mmx = mmx && in->bytes[k] != 0x66;
	if (in->enc == ENC_VEX && prefix(in)[0] == 0xc4 && !(prefix(in)[1] & 0x20))
		reg |= 8;
	if (mmx) {	/* the image has ST(0) first, MMX registers are numbered from the bottom */
		unsigned top = cpu->xsave[3] >> 3 & 7;

		copy_bytes(v->b, cpu->xsave + XSAVE_MMX + 16 * ((reg - top) & 7), 8);
	} else {
		move_vector(cpu, reg, v, false);
	}
}

static void read_mask(struct cpu *cpu, void *arg)
{
	struct mask_job *j = arg;

	if (j->in->mem_masked == MASK_VECTOR)
		move_vector(cpu, vector_vvvv(j->in), &j->v, false);
	else if (j->in->mem_masked == MASK_BYTES)
		read_byte_mask(cpu, j->in, &j->v);
	else
		move_component(cpu, COMPONENT_K, 8u * (prefix(j->in)[3] & 7), &j->k, 8, false);
}

uint64_t active_bytes(struct cpu *cpu, const struct insn *in, unsigned size)
{
	unsigned elem = in->mem_elem && in->mem_masked != MASK_BYTES ? in->mem_elem : 1, n = size / elem, packed = 0;
	uint64_t bytes = 0, one = elem >= 64 ? ~0ull : (1ull << elem) - 1;
	struct mask_job j = { .in = in };

	cpu_heavy(cpu, read_mask, &j);
	if (in->enc == ENC_EVEX && prefix(in)[3] & 0x10)	/* broadcast: any lane needs it */
		return j.k ? ~0ull : 0;
	if (n <= 1)	/* scalar: bit 0 alone decides */
		return j.k & 1 ? ~0ull : 0;
	for (unsigned i = 0; i < n && i < 64; i++) {
		bool on = in->mem_masked == MASK_VECTOR || in->mem_masked == MASK_BYTES ? j.v.b[(i + 1) * elem - 1] & 0x80 : j.k >> i & 1;

		if (!on)
			continue;
		bytes |= one << (in->mem_masked == MASK_K_PACKED ? packed : i) * elem;
		packed++;
	}
	return bytes;
}

/* ----------------------------------------------------------------- gathers */

struct gather {
	const struct insn *in;
	unsigned data, index, count, length;	/* bytes an element, elements, bytes of the vector */
	bool scatter;
	uint64_t on;	/* bit per element still to do */
	struct vector dst, idx;
};

static void gather_begin(struct cpu *cpu, void *arg)
{
	struct gather *g = arg;

	move_vector(cpu, vector_reg(g->in), &g->dst, false);
	move_vector(cpu, vector_index(g->in), &g->idx, false);
	if (g->in->enc == ENC_EVEX) {
		move_component(cpu, COMPONENT_K, 8u * (prefix(g->in)[3] & 7), &g->on, 8, false);
	} else {
		struct vector mask;

		move_vector(cpu, vector_vvvv(g->in), &mask, false);
		for (unsigned i = 0; i < g->count; i++)
			if (mask.b[(i + 1) * g->data - 1] & 0x80)
				g->on |= 1ull << i;
	}
	g->on &= (1ull << g->count) - 1;
}

/* Results so far: the destination, and the mask without the elements done. */
static void gather_end(struct cpu *cpu, void *arg)
{
	struct gather *g = arg;

	if (!g->scatter) {
		unsigned used = g->on ? 64 : g->count * g->data;	/* the rest is zeroed when complete */

		zero_bytes(g->dst.b + used, 64 - used);
		move_vector(cpu, vector_reg(g->in), &g->dst, true);
	}
	if (g->in->enc == ENC_EVEX) {
		move_component(cpu, COMPONENT_K, 8u * (prefix(g->in)[3] & 7), &g->on, 8, true);
	} else {
		struct vector mask = { { 0 } };

		for (unsigned i = 0; i < g->count; i++)
			if (g->on >> i & 1)
				for (unsigned k = 0; k < g->data; k++)
					mask.b[i * g->data + k] = 0xff;
		move_vector(cpu, vector_vvvv(g->in), &mask, true);
	}
}

static uint64_t element_address(const struct cpu *cpu, const struct gather *g, unsigned i)
{
	const struct insn *in = g->in;
	int64_t index = 0;
	int32_t narrow;
	uint64_t ea;

	if (g->index == 4) {
		copy_bytes(&narrow, g->idx.b + 4 * i, 4);
		index = narrow;
	} else {
		copy_bytes(&index, g->idx.b + 8 * i, 8);
	}
	ea = (uint64_t)in->mem_disp + ((uint64_t)index << in->mem_scale);
	if (in->mem_base != INSN_REG_NONE)
		ea += cpu->gpr[in->mem_base];
	if (in->addrsize == 4)
		ea = (uint32_t)ea;
	ea += segment_base(cpu, in);
	return cpu->mode & BLOCK_32 ? (uint32_t)ea : ea;
}

bool gather_insn(struct cpu *cpu, const struct insn *in)
{
	bool wide = prefix(in)[2] & 0x80;
	struct gather g = { .in = in, .scatter = (in->opcode & 0xf0) == 0xa0, .data = wide ? 8 : 4,
			    .index = in->opcode & 1 ? 8 : 4, .length = vector_length(in) };
	uint32_t error = 0;
	int vector = 0;

	g.count = g.length / (g.data > g.index ? g.data : g.index);
	cpu_heavy(cpu, gather_begin, &g);
	for (unsigned i = 0; i < g.count && !vector; i++) {
		uint64_t at = element_address(cpu, &g, i);
		uint8_t *e = g.dst.b + i * g.data;

		if (!(g.on >> i & 1))
			continue;
		vector = g.scatter ? mem_store(cpu, at, e, g.data, cpu->cpl == 3, &error) :
			mem_load(cpu, at, e, g.data, cpu->cpl == 3, &error);
		if (!vector)
			g.on &= ~(1ull << i);
	}
	cpu_heavy(cpu, gather_end, &g);
	if (vector)
		raise_access(cpu, vector, cpu->fault_va, error);
	return !vector;
}
