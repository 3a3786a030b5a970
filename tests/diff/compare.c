/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/diff/compare.h"

#include "base/checked.h"

#include <cpuid.h>
#include <stdarg.h>
#include <string.h>
#include <Zydis/Zydis.h>

#define ARITH 0x8d5u
#define DF 0x400u
#define VEC_PF 14
#define VEC_DB 1
#define VEC_BP 3
#define VEC_SS 12
#define VEC_GP 13
#define PF_P 1u
#define HOST_USER_END 0x7ffffffff000ull	/* Linux reports PF_P for every fault above */

static const char *const gpr_names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					 "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15" };

struct report {
	FILE *out;
	unsigned differences;
};

__attribute__((format(printf, 2, 3))) static void differ(struct report *r, const char *fmt, ...)
{
	va_list ap;

	r->differences++;
	if (!r->out || r->differences > 40)
		return;
	va_start(ap, fmt);
	(void)fputs("  ", r->out);
	(void)vfprintf(r->out, fmt, ap);
	(void)fputc('\n', r->out);
	va_end(ap);
}

const ZydisDecoder *item_decoder(bool code32)
{
	static ZydisDecoder d[2];
	static bool ready;

	if (!ready) {
		ready = true;
		(void)ZydisDecoderInit(&d[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
		(void)ZydisDecoderInit(&d[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
	}
	return &d[code32];
}

/* --- Flags --- */

/*
 * Arithmetic flags at @rip that straight-line code behind it reads, or that reach
 * the end.  The code may have changed itself: looks at what has become of it.
 */
static uint32_t flags_wanted(const struct item *item, uint64_t rip)
{
	const uint8_t *code = native_page(CODE_PAGE) + item->off;
	uint32_t open = ARITH, wanted = 0;
	uint64_t off = rip - CODE_VA;

	if (off < item->off || off >= (uint64_t)item->off + item->len)
		return 0;
	for (off -= item->off; off < item->len && open;) {
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction in;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(item_decoder(item->code32), code + off, item->len - off, &in, ops)))
			return wanted;
		if (in.cpu_flags) {
			wanted |= in.cpu_flags->tested & open;
			open &= ~(in.cpu_flags->modified | in.cpu_flags->set_0 | in.cpu_flags->set_1 |
				  in.cpu_flags->undefined);
		}
		if (in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
			return wanted;
		off += in.length;
	}
	return off == item->len ? wanted | open : wanted;
}

/* --- Vector state --- */

struct component {
	const char *name;
	unsigned index, off, size;
};

static const uint8_t *component_bytes(const struct outcome *o, const struct component *c, uint8_t *init)
{
	uint64_t present;

	memcpy(&present, o->regs.xsave + 512, 8);
	if (present & 1ull << c->index)
		return o->regs.xsave + c->off;
	memset(init, 0, c->size);
	return init;
}

static void compare_bytes(struct report *r, const char *name, const uint8_t *a, const uint8_t *b, unsigned size,
			  unsigned lane)
{
	for (unsigned i = 0; i < size; i += lane) {
		char text[2][2 * 16 + 1];

		if (memcmp(a + i, b + i, lane) == 0)
			continue;
		for (unsigned k = 0; k < lane; k++) {
			(void)snprintf(text[0] + 2 * k, 3, "%02x", a[i + lane - 1 - k]);
			(void)snprintf(text[1] + 2 * k, 3, "%02x", b[i + lane - 1 - k]);
		}
		differ(r, "%s%u: native %s, guest %s", name, i / lane, text[0], text[1]);
	}
}

static void compare_x87(struct report *r, const struct outcome *native, const struct outcome *guest)
{
	const struct component legacy = { "x87", 0, 0, 160 };
	uint8_t init[2][160], regs[2][8][10];
	const uint8_t *a = component_bytes(native, &legacy, init[0]), *b = component_bytes(guest, &legacy, init[1]);

	init[0][0] = init[1][0] = 0x7f;
	init[0][1] = init[1][1] = 3;
	compare_bytes(r, "x87 control ", a, b, 2, 2);
	compare_bytes(r, "x87 status ", a + 2, b + 2, 2, 2);
	compare_bytes(r, "x87 tags ", a + 4, b + 4, 1, 1);
	for (unsigned i = 0; i < 8; i++) {
		memcpy(regs[0][i], a + 32 + 16 * i, 10);
		memcpy(regs[1][i], b + 32 + 16 * i, 10);
	}
	compare_bytes(r, "st", regs[0][0], regs[1][0], sizeof(regs[0]), 10);
}

static void compare_vectors(struct report *r, bool code32, const struct outcome *native, const struct outcome *guest)
{
	static const char *const names[] = { "", "xmm", "ymm_high", "", "", "k", "zmm_high", "zmm" };
	static const uint8_t lanes[] = { 0, 16, 16, 0, 0, 8, 16, 16 };
	uint8_t init[2][1024];
	uint32_t c, d;

	compare_x87(r, native, guest);
	compare_bytes(r, "mxcsr", native->regs.xsave + 24, guest->regs.xsave + 24, 4, 4);
	for (unsigned k = 1; k < 8; k++) {
		struct component what = { names[k], k, 160, 256 };

		if (!(diff_xcr0 & 1u << k) || !lanes[k])
			continue;
		if (k > 1)
			__cpuid_count(0xd, k, what.size, what.off, c, d);
		if (code32 && k == 7)
			continue;
		if (code32 && k != 5)
			what.size /= 2;
		compare_bytes(r, names[k], component_bytes(native, &what, init[0]), component_bytes(guest, &what, init[1]),
			      what.size, lanes[k]);
	}
}

/* --- All of it --- */

static bool has_error_code(int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
}

static void compare_exception(struct report *r, const struct outcome *native, const struct outcome *guest)
{
	uint32_t ignore = 0;

	if (native->vector != guest->vector) {
		differ(r, "vector: native %d, guest %d %s", native->vector, guest->vector,
		       guest->vector == OUTCOME_BROKEN ? guest->why : "");
		return;
	}
	if (native->vector == VEC_PF && native->cr2 >= HOST_USER_END)
		ignore = PF_P;
	if (has_error_code(native->vector) && (native->error ^ guest->error) & ~ignore)
		differ(r, "error code: native %x, guest %x", native->error, guest->error);
	if (native->vector == VEC_PF && native->cr2 != guest->cr2)
		differ(r, "cr2: native %llx, guest %llx", (unsigned long long)native->cr2, (unsigned long long)guest->cr2);
}

static void compare_memory(struct report *r, const struct item *item)
{
	for (unsigned page = 0; page < DIFF_PAGES; page++) {
		const uint8_t *a = native_page(page), *b = guest_page(page);

		if (memcmp(a, b, PAGE) == 0)
			continue;
		for (unsigned i = 0; i < PAGE; i++)
			if (a[i] != b[i])
				differ(r, "memory %llx: native %02x, guest %02x",
				       (unsigned long long)diff_pages[page].va + i, a[i], b[i]);
	}
	(void)item;
}

static void compare_flags(struct report *r, const struct item *item, const struct outcome *native,
			  const struct outcome *guest)
{
	uint32_t mask = DF | (native->vector == VEC_BP ? ARITH : flags_wanted(item, native->regs.rip));
	uint32_t a = (uint32_t)native->regs.rflags & mask, b = (uint32_t)guest->regs.rflags & mask;

	if (a != b)
		differ(r, "rflags: native %03x, guest %03x (of %03x)", a, b, mask);
}

/* An operand across the 4 GiB limit of a 32-bit segment: the translator knows no limits and finds no page. */
static bool beyond_limit(const struct item *item, const struct outcome *native, const struct outcome *guest)
{
	return item->code32 && (native->vector == VEC_GP || native->vector == VEC_SS) && guest->vector == VEC_PF &&
	       (guest->cr2 > 0xffffff00 || guest->cr2 < 0x100) && native->regs.rip == guest->regs.rip;
}

/* The instruction at @rip, in the code as it is by now. */
static bool decode_at(const struct item *item, uint64_t rip, ZydisDecodedInstruction *ret)
{
	uint64_t off = rip - CODE_VA;

	return off < 2 * PAGE && ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(item_decoder(item->code32), NULL,
									    native_page(CODE_PAGE) + off, 2 * PAGE - off, ret));
}

static bool is_branch(const struct item *item, uint64_t rip)
{
	ZydisDecodedInstruction in;

	return decode_at(item, rip, &in) && in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE;
}

static bool is_memory_fault(int vector)
{
	return vector == VEC_PF || vector == VEC_GP || vector == VEC_SS;
}

/* CMPS, neither of whose operands can be read: processors do not agree on which of them is reported. */
static bool either_fault_will_do(const struct item *item, const struct outcome *native, const struct outcome *guest)
{
	ZydisDecodedInstruction in;

	return is_memory_fault(native->vector) && is_memory_fault(guest->vector) && native->regs.rip == guest->regs.rip &&
	       decode_at(item, native->regs.rip, &in) && in.mnemonic >= ZYDIS_MNEMONIC_CMPSB &&
	       in.mnemonic <= ZYDIS_MNEMONIC_CMPSW && in.meta.category == ZYDIS_CATEGORY_STRINGOP;
}

/* CLZERO behind a prefix for repetitions: some processors (Zen 4) carry it out, to others it is no instruction. */
static bool has_repeated_clzero(const struct item *item)
{
	ZydisDecodedInstruction in;

	for (unsigned off = 0; off < item->len; off += in.length) {
		if (!decode_at(item, CODE_VA + item->off + off, &in)) {
			in.length = 1;
			continue;
		}
		for (unsigned i = 0; in.mnemonic == ZYDIS_MNEMONIC_CLZERO && i < in.raw.prefix_count; i++)
			if (in.raw.prefixes[i].value == 0xf2 || in.raw.prefixes[i].value == 0xf3)
				return true;
	}
	return false;
}

/* INT1, which only code that went astray meets: under some hypervisors RIP is at it, not behind it. */
static bool is_int1(const struct outcome *native)
{
	uint64_t off = native->regs.rip - CODE_VA;

	return native->vector == VEC_DB && off < 2 * PAGE && native_page(CODE_PAGE)[off] == 0xf1;
}

static bool any_changed(const struct item *item, const uint8_t *now, unsigned off, unsigned n)
{
	return memcmp(item->code + off, now + off, n) != 0;
}

/*
 * Items that rewrote themselves into what the generator never makes because
 * CAVEATS.md excepts it: flags that the code as translated could not read, 16-bit
 * near branches in 64-bit mode, and segments other than flat ones in 32-bit code.
 */
static bool rewrote_itself_into_exception(const struct item *item)
{
	const uint8_t *now = native_page(CODE_PAGE) + item->off;

	for (unsigned off = 0; off < item->len;) {
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction in;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(item_decoder(item->code32), now + off, item->len - off, &in, ops))) {
			off++;
			continue;
		}
		for (unsigned i = 0; i < in.operand_count && any_changed(item, now, off, in.length); i++)
			if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && item->code32 &&
			    ops[i].mem.segment != ZYDIS_REGISTER_DS && ops[i].mem.segment != ZYDIS_REGISTER_SS &&
			    ops[i].mem.segment != ZYDIS_REGISTER_ES)
				return true;
		if (any_changed(item, now, off, in.length) && in.cpu_flags && in.cpu_flags->tested & ARITH)
			return true;
		if (any_changed(item, now, off, in.length) && !item->code32 && in.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
		    in.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
			return true;
		off += in.length;
	}
	return false;
}

/* A repeated string instruction that has written over itself: how far it goes is up to interrupts, and to single steps. */
static bool overwrote_repetition(const struct item *item)
{
	const uint8_t *now = native_page(CODE_PAGE) + item->off;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction in;

	for (unsigned off = 0; off < item->len; off += in.length) {
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(item_decoder(item->code32), item->code + off, item->len - off, &in, ops)))
			return false;
		if (in.meta.category == ZYDIS_CATEGORY_STRINGOP && in.raw.prefix_count && any_changed(item, now, off, in.length))
			return true;
	}
	return false;
}

unsigned compare(const struct item *item, const struct outcome *native, const struct outcome *guest, FILE *out)
{
	struct report r = { .out = out };

	if (beyond_limit(item, native, guest) || (native->vector == VEC_GP && is_branch(item, native->regs.rip)) ||
	    is_int1(native))
		return 0;
	if (rewrote_itself_into_exception(item) || overwrote_repetition(item) || has_repeated_clzero(item))
		return 0;
	if (!either_fault_will_do(item, native, guest))
		compare_exception(&r, native, guest);
	if (guest->vector < 0)
		return r.differences;
	if (native->regs.rip != guest->regs.rip)
		differ(&r, "rip: native %llx, guest %llx", (unsigned long long)native->regs.rip,
		       (unsigned long long)guest->regs.rip);
	for (unsigned i = 0; i < (item->code32 ? 8u : 16u); i++)
		if (item->code32 ? (uint32_t)native->regs.gpr[i] != (uint32_t)guest->regs.gpr[i] :
		    native->regs.gpr[i] != guest->regs.gpr[i])
			differ(&r, "%s: native %016llx, guest %016llx", gpr_names[i],
			       (unsigned long long)native->regs.gpr[i], (unsigned long long)guest->regs.gpr[i]);
	if (native->regs.fs_base != guest->regs.fs_base || native->regs.gs_base != guest->regs.gs_base)
		differ(&r, "fs, gs base: native %llx %llx, guest %llx %llx", (unsigned long long)native->regs.fs_base,
		       (unsigned long long)native->regs.gs_base, (unsigned long long)guest->regs.fs_base,
		       (unsigned long long)guest->regs.gs_base);
	compare_flags(&r, item, native, guest);
	compare_vectors(&r, item->code32, native, guest);
	compare_memory(&r, item);
	return r.differences;
}

/* --- Showing --- */

unsigned insn_length(const struct item *item, unsigned off)
{
	ZydisDecodedInstruction in;

	if (off >= item->len ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(item_decoder(item->code32), NULL, item->code + off, item->len - off, &in)))
		return 1;
	return in.length;
}

uint32_t insn_key(const struct item *item)
{
	ZydisDecodedInstruction in;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(item_decoder(item->code32), NULL, item->code, item->len, &in)))
		return 0;
	return (uint32_t)in.mnemonic | (uint32_t)(in.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) << 11 |
		(uint32_t)(in.avx.vector_length / 128 & 7) << 12 | (uint32_t)item->code32 << 15;
}

void show_line(const struct item *item, FILE *out)
{
	(void)fprintf(out, "%u 0x%016llx %u ", item->code32 ? 32 : 64, (unsigned long long)item->seed, item->off);
	for (unsigned i = 0; i < item->len; i++)
		(void)fprintf(out, "%02x", item->code[i]);
	(void)fputc('\n', out);
}

void show_item(const struct item *item, const struct regs *regs, FILE *out)
{
	ZydisFormatter formatter;
	unsigned n;

	show_line(item, out);
	for (unsigned i = 0; i < (item->code32 ? 8u : 16u); i++)
		(void)fprintf(out, "  %-3s %016llx%s", gpr_names[i], (unsigned long long)regs->gpr[i], i % 4 == 3 ? "\n" : "");
	(void)fprintf(out, "  rflags %03llx fs %llx gs %llx mxcsr %02x%02x fcw %02x%02x\n", (unsigned long long)regs->rflags,
		      (unsigned long long)regs->fs_base, (unsigned long long)regs->gs_base, regs->xsave[25], regs->xsave[24],
		      regs->xsave[1], regs->xsave[0]);
	(void)ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	for (unsigned off = 0; off < item->len; off += n) {
		ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction in;
		char text[128] = "(bad)";
		uint64_t at = CODE_VA + item->off + off;

		n = 1;
		if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(item_decoder(item->code32), item->code + off, item->len - off, &in, ops))) {
			n = in.length;
			(void)ZydisFormatterFormatInstruction(&formatter, &in, ops, in.operand_count_visible, text,
							      sizeof(text), at, NULL);
		}
		(void)fprintf(out, "    %llx:  %s\n", (unsigned long long)at, text);
	}
}
