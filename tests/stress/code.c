/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code that a program makes for itself, as JIT compilers do.  A function is a list of
 * operations on RAX, RDI pointing at a table of words; the same list computed in C
 * tells what calling it must return.
 */
#include "tests/stress/stress.h"

#include <string.h>
#include <sys/mman.h>

#define OPS_MAX 24u
#define WORDS 512u
#define FUNCTION_BYTES 256u
#define CODE_PAGES 64u
#define CODE_BYTES (CODE_PAGES * 4096u)
#define FILL_BYTES (16u << 20)

typedef uint64_t (*function)(uint64_t *words, uint64_t start);

static uint64_t words[WORDS];

/* An operation as code at @at and as its effect on @value; returns the bytes. */
static unsigned make_op(struct rng *rng, uint8_t *at, uint64_t *value)
{
	unsigned word = rng_below(rng, WORDS);
	uint32_t disp = word * 8;
	uint64_t imm = rng_next(rng);
	uint8_t code[16];
	unsigned n = 0;

	switch (rng_below(rng, 6)) {
	case 0:	/* add disp(%rdi),%rax */
		memcpy(code, "\x48\x03\x87", 3);
		memcpy(code + 3, &disp, 4);
		n = 7;
		*value += words[word];
		break;
	case 1:	/* xor disp(%rdi),%rax */
		memcpy(code, "\x48\x33\x87", 3);
		memcpy(code + 3, &disp, 4);
		n = 7;
		*value ^= words[word];
		break;
	case 2:	/* movabs $imm,%rcx; add %rcx,%rax */
		memcpy(code, "\x48\xb9", 2);
		memcpy(code + 2, &imm, 8);
		memcpy(code + 10, "\x48\x01\xc8", 3);
		n = 13;
		*value += imm;
		break;
	case 3:	/* rol $imm,%rax */
		memcpy(code, "\x48\xc1\xc0", 3);
		code[3] = (uint8_t)(imm % 63 + 1);
		n = 4;
		*value = *value << code[3] | *value >> (64 - code[3]);
		break;
	case 4:	/* imul disp(%rdi),%rax */
		memcpy(code, "\x48\x0f\xaf\x87", 4);
		memcpy(code + 4, &disp, 4);
		n = 8;
		*value *= words[word];
		break;
	default:	/* jmp over a byte that nobody decodes */
		memcpy(code, "\xeb\x01\x06", 3);
		n = 3;
		break;
	}
	memcpy(at, code, n);
	return n;
}

/* Writes a function; returns what calling it with @start gives. */
static uint64_t make_function(struct rng *rng, uint8_t *at, unsigned ops, uint64_t start)
{
	unsigned n = 3;

	memcpy(at, "\x48\x89\xf0", 3);	/* mov %rsi,%rax */
	while (ops--)
		n += make_op(rng, at + n, &start);
	at[n++] = 0xc3;
	must(n <= FUNCTION_BYTES);
	return start;
}

static uint64_t call(const uint8_t *at, uint64_t start)
{
	function f;

	memcpy(&f, &at, sizeof(f));
	return f(words, start);
}

static uint8_t *map_code(size_t bytes, int prot)
{
	uint8_t *code = mmap(NULL, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(code != MAP_FAILED);
	return code;
}

/* Functions side by side in writable and executable memory, each rewritten while others stay. */
static void rewrite(struct rng *rng, uint8_t *code)
{
	static uint64_t results[CODE_BYTES / FUNCTION_BYTES];
	static uint64_t starts[CODE_BYTES / FUNCTION_BYTES];
	unsigned n = CODE_BYTES / FUNCTION_BYTES;

	for (unsigned i = 0; i < 64; i++) {
		unsigned k = rng_below(rng, n), other = rng_below(rng, n);

		starts[k] = rng_next(rng);
		results[k] = make_function(rng, code + k * FUNCTION_BYTES, 1 + rng_below(rng, OPS_MAX - 6), starts[k]);
		must(call(code + k * FUNCTION_BYTES, starts[k]) == results[k]);
		if (results[other])
			must(call(code + other * FUNCTION_BYTES, starts[other]) == results[other]);
	}
}

/* Written while not executable, then the other way round. */
static void protect(struct rng *rng)
{
	uint8_t *code = map_code(4096, PROT_READ | PROT_WRITE);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t start = rng_next(rng), result;
		unsigned at = rng_below(rng, 4096 - FUNCTION_BYTES);

		must(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
		result = make_function(rng, code + at, 1 + rng_below(rng, OPS_MAX - 6), start);
		must(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
		must(call(code + at, start) == result);
	}
	must(munmap(code, 4096) == 0);
}

/* One immediate changes between calls, as static keys and inline caches do. */
static void patch(struct rng *rng, uint8_t *code)
{
	static const uint8_t text[] = { 0x48, 0x89, 0xf0, 0x48, 0x05, 0, 0, 0, 0, 0xc3 };	/* mov; add $imm32,%rax; ret */

	memcpy(code, text, sizeof(text));
	for (unsigned i = 0; i < 32; i++) {
		uint32_t imm = (uint32_t)rng_next(rng) >> 1;

		memcpy(code + 5, &imm, sizeof(imm));
		must(call(code, i) == i + imm);
	}
}

void piece_code(struct work *w)
{
	uint8_t *code = map_code(CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
	uint8_t *patched = map_code(4096, PROT_READ | PROT_WRITE | PROT_EXEC);

	fill_bytes(rng_next(&w->rng), words, sizeof(words));
	for (; !time_is_over(w); w->rounds++) {
		rewrite(&w->rng, code);
		protect(&w->rng);
		patch(&w->rng, patched + rng_below(&w->rng, 4000));
	}
}

void piece_fill(struct work *w)
{
	uint8_t *code = map_code(FILL_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC), text[FUNCTION_BYTES] = { 0 };

	fill_bytes(rng_next(&w->rng), words, sizeof(words));
	for (; !time_is_over(w); w->rounds++)
		for (unsigned at = 0; at < FILL_BYTES && !time_is_over(w); at += FUNCTION_BYTES) {
			uint64_t start = rng_next(&w->rng);
			uint64_t result = make_function(&w->rng, text, OPS_MAX - 6, start);

			memcpy(code + at, text, sizeof(text));
			must(call(code + at, start) == result);
		}
}
