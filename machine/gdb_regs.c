/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/gdb_regs.h"

#include "base/checked.h"
#include "vmm/vcpu_state.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	FIELD,	/* of struct vcpu_state at @off */
	FIXED,	/* the same, which GDB cannot change */
	XSAVE,	/* @size bytes of state.xsave at @off */
	NARROW,	/* 16 bits there, shown in 32 */
	TAGS,	/* x87 tag word: one bit a register there, two for GDB */
};

struct reg {
	const char *name, *type, *group;	/* @group: NULL for GDB's own choice */
	uint8_t size;	/* bytes */
	uint8_t kind;
	uint16_t off;
};

#define AT(field) offsetof(struct vcpu_state, field)
#define GPR(name, index) { name, "int64", NULL, 8, FIELD, AT(gpr[index]) }
#define SELECTOR(name, index) { name, "int32", NULL, 4, FIXED, AT(seg[index].sel) }
#define CONTROL(name, field) { name, "int64", "system", 8, FIXED, AT(field) }
#define ST(n) { "st" #n, "i387_ext", NULL, 10, XSAVE, 32 + 16 * (n) }
#define XMM(n) { "xmm" #n, "vec128", NULL, 16, XSAVE, 160 + 16 * (n) }
#define YMMH(n) { "ymm" #n "h", "uint128", NULL, 16, XSAVE, 576 + 16 * (n) }

/* Offsets in the XSAVE area: SDM vol. 1, tables 10-2 and 13.4. */
static const struct reg regs[] = {
	GPR("rax", RAX), GPR("rbx", RBX), GPR("rcx", RCX), GPR("rdx", RDX), GPR("rsi", RSI), GPR("rdi", RDI),
	{ "rbp", "data_ptr", NULL, 8, FIELD, AT(gpr[RBP]) }, { "rsp", "data_ptr", NULL, 8, FIELD, AT(gpr[RSP]) },
	GPR("r8", R8), GPR("r9", R9), GPR("r10", R10), GPR("r11", R11), GPR("r12", R12), GPR("r13", R13),
	GPR("r14", R14), GPR("r15", R15),
	{ "rip", "code_ptr", NULL, 8, FIELD, AT(rip) },
	{ "eflags", "i386_eflags", NULL, 4, FIELD, AT(rflags) },
	SELECTOR("cs", SEG_CS), SELECTOR("ss", SEG_SS), SELECTOR("ds", SEG_DS), SELECTOR("es", SEG_ES),
	SELECTOR("fs", SEG_FS), SELECTOR("gs", SEG_GS),
	ST(0), ST(1), ST(2), ST(3), ST(4), ST(5), ST(6), ST(7),
	{ "fctrl", "int", "float", 4, NARROW, 0 }, { "fstat", "int", "float", 4, NARROW, 2 },
	{ "ftag", "int", "float", 4, TAGS, 4 }, { "fiseg", "int", "float", 4, NARROW, 12 },
	{ "fioff", "int", "float", 4, XSAVE, 8 }, { "foseg", "int", "float", 4, NARROW, 20 },
	{ "fooff", "int", "float", 4, XSAVE, 16 }, { "fop", "int", "float", 4, NARROW, 6 },
	XMM(0), XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7), XMM(8), XMM(9), XMM(10), XMM(11), XMM(12),
	XMM(13), XMM(14), XMM(15),
	{ "mxcsr", "i386_mxcsr", "vector", 4, XSAVE, 24 },
	{ "fs_base", "int", NULL, 8, FIELD, AT(seg[SEG_FS].base) },
	{ "gs_base", "int", NULL, 8, FIELD, AT(seg[SEG_GS].base) },
	YMMH(0), YMMH(1), YMMH(2), YMMH(3), YMMH(4), YMMH(5), YMMH(6), YMMH(7), YMMH(8), YMMH(9), YMMH(10), YMMH(11),
	YMMH(12), YMMH(13), YMMH(14), YMMH(15),
	CONTROL("cr0", cr0), CONTROL("cr2", cr2), CONTROL("cr3", cr3), CONTROL("cr4", cr4), CONTROL("cr8", cr8),
	CONTROL("efer", efer),
};

/* Each begins at the register named and goes to the next one's. */
static const struct {
	const char *name, *first;
	const char *types;
} features[] = {
	{ "org.gnu.gdb.i386.core", "rax",
	  "<flags id=\"i386_eflags\" size=\"4\">"
	  "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
	  "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>"
	  "<field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>"
	  "<field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>"
	  "<field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>"
	  "<field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
	  "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>" },
	{ "org.gnu.gdb.i386.sse", "xmm0",
	  "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
	  "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
	  "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
	  "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
	  "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
	  "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
	  "<field name=\"uint128\" type=\"uint128\"/></union>"
	  "<flags id=\"i386_mxcsr\" size=\"4\">"
	  "<field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>"
	  "<field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/>"
	  "<field name=\"UE\" start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/>"
	  "<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"FZ\" start=\"15\" end=\"15\"/></flags>" },
	{ "org.gnu.gdb.i386.segments", "fs_base", "" },
	{ "org.gnu.gdb.i386.avx", "ymm0h", "" },
	{ "org.roux.system", "cr0", "" },
};

#define XSTATE_BV 512u	/* in the XSAVE area */

unsigned gdb_regs_count(void)
{
	return ARRAY_SIZE(regs);
}

unsigned gdb_reg_size(unsigned n)
{
	return n < ARRAY_SIZE(regs) ? regs[n].size : 0;
}

/* Tags of the physical registers, two bits each: valid, zero, special, empty (SDM vol. 1, 8.1.7). */
static uint16_t full_tags(const uint8_t *xsave)
{
	unsigned top = xsave[3] >> 3 & 7, tags = 0;

	for (unsigned phys = 0; phys < 8; phys++) {
		const uint8_t *st = xsave + 32 + 16 * ((phys - top) & 7);
		uint64_t mantissa;
		uint16_t exponent;
		unsigned tag = 0;

		memcpy(&mantissa, st, 8);
		memcpy(&exponent, st + 8, 2);
		exponent &= 0x7fff;
		if (!(xsave[4] >> phys & 1))
			tag = 3;
		else if (!exponent && !mantissa)
			tag = 1;
		else if (!exponent || exponent == 0x7fff || !(mantissa >> 63))
			tag = 2;
		tags |= tag << 2 * phys;
	}
	return (uint16_t)tags;
}

static uint8_t short_tags(uint16_t full)
{
	unsigned tags = 0;

	for (unsigned phys = 0; phys < 8; phys++)
		tags |= ((full >> 2 * phys & 3) != 3 ? 1u : 0u) << phys;
	return (uint8_t)tags;
}

void gdb_reg_read(const struct vcpu_state *state, unsigned n, uint8_t *buf)
{
	const struct reg *r = &regs[n];
	const uint8_t *field = (const uint8_t *)state + r->off;
	uint16_t tags;

	memset(buf, 0, GDB_REG_MAX);
	switch ((enum kind)r->kind) {
	case FIELD:
		memcpy(buf, field, r->size);
		break;
	case FIXED:	/* selectors have 16 bits */
		memcpy(buf, field, r->size == 4 ? 2 : r->size);
		break;
	case XSAVE:
		memcpy(buf, state->xsave + r->off, r->size);
		break;
	case NARROW:
		memcpy(buf, state->xsave + r->off, 2);
		break;
	case TAGS:
		tags = full_tags(state->xsave);
		memcpy(buf, &tags, 2);
		break;
	}
}

/* Component of the XSAVE area that a register belongs to: x87, SSE, AVX. */
static uint8_t component(unsigned off)
{
	return off >= 576 ? 4 : off >= 160 || off == 24 ? 2 : 1;
}

void gdb_reg_write(struct vcpu_state *state, unsigned n, const uint8_t *buf)
{
	const struct reg *r = &regs[n];
	uint16_t tags;

	switch ((enum kind)r->kind) {
	case FIELD:
		memcpy((uint8_t *)state + r->off, buf, r->size);
		return;
	case FIXED:
		return;
	case XSAVE:
		memcpy(state->xsave + r->off, buf, r->size);
		break;
	case NARROW:
		memcpy(state->xsave + r->off, buf, 2);
		break;
	case TAGS:
		memcpy(&tags, buf, 2);
		state->xsave[r->off] = short_tags(tags);
		break;
	}
	if (component(r->off) & state->xcr0)
		state->xsave[XSTATE_BV] |= component(r->off);
}

char *gdb_regs_xml(void)
{
	unsigned next = 0;
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	if (!f)
		return NULL;
	(void)fputs("<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
		    "<target version=\"1.0\"><architecture>i386:x86-64</architecture>\n", f);
	for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
		const struct reg *r = &regs[i];

		if (next < ARRAY_SIZE(features) && strcmp(r->name, features[next].first) == 0) {
			(void)fprintf(f, "%s<feature name=\"%s\">%s\n", next ? "</feature>\n" : "", features[next].name,
				      features[next].types);
			next++;
		}
		(void)fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"", r->name, r->size * 8,
			      r->type, i);
		if (r->group)
			(void)fprintf(f, " group=\"%s\"", r->group);
		(void)fputs("/>\n", f);
	}
	(void)fputs("</feature></target>\n", f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
