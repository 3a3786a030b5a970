/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diff [--seed N] [--count M] [--mode block|single] [--bits 32|64] [--gather]
 *      [--regressions FILE] [--keep-going] [--append]
 *
 * Runs the saved items, the directed ones, then M random ones, each on the host
 * CPU and in the translator, and compares.  Differences are printed with the
 * shortest code that still shows them; --append also saves that to FILE.  Exit
 * status 1 when anything differed, 77 when this host cannot run the test.
 */
#include "tests/diff/compare.h"
#include "tests/diff/diff.h"
#include "tests/diff/directed.h"

#include "base/checked.h"
#include "os/err.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIP 77
#define VEC_UD 6
#define VEC_PF 14
#define FAILURES_MAX 10	/* printed; then the run ends */

struct options {
	uint64_t seed, count;
	bool single, mixed, gather, keep_going, append, only32, only64;
	const char *regressions;
};

struct run {
	struct options o;
	struct item *current;	/* shared with the parent process */
	bool has_32;
	uint8_t pages[DIFF_PAGES * PAGE];
	struct regs regs;
	struct outcome native, guest;
	uint64_t items, hangs, astray, by_vector[32];
	unsigned failures;
};

static struct guest_options guest_options_of(const struct run *r, const struct item *item)
{
	struct rng rng = { item->seed ^ 0x6d6f6465ull };
	struct guest_options o = { .flush = rng_chance(&rng, 50), .slow_loop = rng_chance(&rng, 30), .single = r->o.single };

	if (r->o.mixed)
		o.single = rng_chance(&rng, 12);
	return o;
}

/* Whether this process has something at @va that the guest has not: natively, wild pointers can lead there. */
static bool is_ours(uint64_t va)
{
	FILE *maps;
	unsigned long long from, to;
	bool found = false;

	for (unsigned i = 0; i < DIFF_PAGES; i++)
		if (va >= diff_pages[i].va && va - diff_pages[i].va < PAGE)
			return false;
	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return false;
	while (!found && fscanf(maps, "%llx-%llx%*[^\n]", &from, &to) == 2)
		found = va >= from && va < to;
	(void)fclose(maps);
	return found;
}

/* Runs both sides; the number of differences, printed to @out if not NULL.  0 for items that never end, or come upon what is ours. */
static unsigned try_item(struct run *r, const struct item *item, FILE *out)
{
	struct guest_options options = guest_options_of(r, item);
	unsigned differences;

	*r->current = *item;
	state_init(item, &r->regs, r->pages);
	native_run(item, &r->regs, r->pages, &r->native);
	if (r->native.vector < 0) {
		r->hangs++;
		return 0;
	}
	guest_run(item, &r->regs, r->pages, &options, &r->guest);
	differences = compare(item, &r->native, &r->guest, NULL);
	if (differences && r->guest.vector == VEC_PF && is_ours(r->guest.cr2)) {
		r->astray++;
		return 0;
	}
	if (differences && out)
		(void)compare(item, &r->native, &r->guest, out);
	return differences;
}

/* --- Shrinking --- */

static bool still_fails(struct run *r, const struct item *item)
{
	return try_item(r, item, NULL) != 0;
}

static struct item without(const struct item *item, unsigned off, unsigned n, bool as_nops)
{
	struct item out = *item;

	if (as_nops) {
		memset(out.code + off, 0x90, n);
	} else {
		memmove(out.code + off, out.code + off + n, (size_t)(out.len - off - n));
		out.len = (uint16_t)(out.len - n);
	}
	return out;
}

static bool is_nops(const struct item *item, unsigned off, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (item->code[off + i] != 0x90)
			return false;
	return true;
}

/* Drops instructions, or turns them into NOPs, while the item still fails. */
static void shrink(struct run *r, struct item *item)
{
	bool again = true;

	while (again) {
		again = false;
		for (unsigned off = 0; off < item->len;) {
			unsigned n = insn_length(item, off);
			struct item dropped = without(item, off, n, false), blank = without(item, off, n, true);

			if (still_fails(r, &dropped)) {
				*item = dropped;
				again = true;
				continue;
			}
			if (!is_nops(item, off, n) && still_fails(r, &blank)) {
				*item = blank;
				again = true;
			}
			off += n;
		}
	}
}

static void save(const struct run *r, const struct item *item)
{
	FILE *f = r->o.append ? fopen(r->o.regressions, "a") : NULL;

	if (!f)
		return;
	show_line(item, f);
	(void)fclose(f);
}

static void failed(struct run *r, struct item item, const char *what)
{
	char *first = NULL;
	size_t n;
	FILE *f = open_memstream(&first, &n);

	if (f) {
		(void)compare(&item, &r->native, &r->guest, f);
		(void)fclose(f);
	}
	r->failures++;
	(void)printf("\nDIFFERENT (%s, seed 0x%llx):\n", what, (unsigned long long)item.seed);
	if (still_fails(r, &item)) {
		shrink(r, &item);
		save(r, &item);
		(void)try_item(r, &item, NULL);
	} else {
		(void)printf("  not reproducible alone; it was:\n%s", first ? first : "");
	}
	free(first);
	show_item(&item, &r->regs, stdout);
	(void)try_item(r, &item, stdout);
	(void)printf("  ended with vector %d at %llx\n", r->native.vector, (unsigned long long)r->native.regs.rip);
	(void)fflush(stdout);
}

static void run_item(struct run *r, const struct item *item, const char *what)
{
	r->items++;
	if (try_item(r, item, NULL))
		failed(r, *item, what);
	else if (r->native.vector >= 0)
		r->by_vector[r->native.vector & 31]++;
}

static bool enough(const struct run *r)
{
	return r->failures >= FAILURES_MAX && !r->o.keep_going;
}

/* --- Where items come from --- */

static bool parse_line(const char *line, struct item *ret_item)
{
	unsigned bits, off, byte;
	unsigned long long seed;
	int at = 0, used;

	if (sscanf(line, "%u %llx %u %n", &bits, &seed, &off, &at) != 3 || !at)
		return false;
	*ret_item = (struct item){ .seed = seed, .code32 = bits == 32, .off = (uint16_t)off };
	for (const char *p = line + at; ret_item->len < CODE_BYTES_MAX && sscanf(p, "%2x%n", &byte, &used) == 1; p += used)
		ret_item->code[ret_item->len++] = (uint8_t)byte;
	return ret_item->len > 0 && off + ret_item->len <= 2 * PAGE;
}

static void run_saved(struct run *r)
{
	FILE *f = r->o.regressions ? fopen(r->o.regressions, "r") : NULL;
	char line[2 * CODE_BYTES_MAX + 64];
	bool append = r->o.append;

	r->o.append = false;
	while (f && fgets(line, sizeof(line), f) && !enough(r)) {
		struct item item;

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (!parse_line(line, &item))
			(void)printf("cannot read: %s", line);
		else if (!item.code32 || r->has_32)
			run_item(r, &item, "saved");
	}
	if (f)
		(void)fclose(f);
	r->o.append = append;
}

static void run_directed(struct run *r)
{
	struct item item;
	const char *name;

	for (unsigned i = 0; (name = directed_item(i, &item)) != NULL; i++)
		run_item(r, &item, name);
}

/* Whether the host knows an instruction, by trying it; remembered by opcode. */
static bool supported(const uint8_t *insn, unsigned len, bool code32)
{
	static uint8_t known[1u << 16];	/* 0 unknown, 1 no, 2 yes */
	static uint8_t pages[DIFF_PAGES * PAGE];
	static struct outcome out;
	static struct regs regs;
	struct item item = { .seed = 7, .code32 = code32, .len = (uint16_t)len };
	uint32_t key;

	memcpy(item.code, insn, len);
	key = insn_key(&item) & (ARRAY_SIZE(known) - 1);
	if (!known[key]) {
		state_init(&item, &regs, pages);
		native_run(&item, &regs, pages, &out);
		known[key] = out.vector == VEC_UD ? 1 : 2;
	}
	return known[key] == 2;
}

static void run_random(struct run *r)
{
	struct generate_options options = { .gather = r->o.gather, .supported = supported };
	struct rng rng = { r->o.seed };

	for (uint64_t i = 0; i < r->o.count && !enough(r); i++) {
		struct item item = { .seed = rng_next(&rng) };

		item.code32 = r->has_32 && !r->o.only64 && (r->o.only32 || item.seed % 8 == 0);
		generate(&item, &options);
		run_item(r, &item, "random");
	}
}

/* --- Start --- */

static bool parse_options(int argc, char **argv, struct options *o)
{
	*o = (struct options){ .count = 20000, .mixed = true };
	(void)!getrandom(&o->seed, sizeof(o->seed), 0);
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(a, "--gather") == 0) {
			o->gather = true;
			continue;
		}
		if (strcmp(a, "--keep-going") == 0) {
			o->keep_going = true;
			continue;
		}
		if (strcmp(a, "--append") == 0) {
			o->append = true;
			continue;
		}
		if (!value)
			return false;
		i++;
		if (strcmp(a, "--seed") == 0)
			o->seed = strtoull(value, NULL, 0);
		else if (strcmp(a, "--count") == 0)
			o->count = strtoull(value, NULL, 0);
		else if (strcmp(a, "--regressions") == 0)
			o->regressions = value;
		else if (strcmp(a, "--bits") == 0)
			o->only32 = strcmp(value, "32") == 0, o->only64 = !o->only32;
		else if (strcmp(a, "--mode") == 0)
			o->mixed = false, o->single = strcmp(value, "single") == 0;
		else
			return false;
	}
	return true;
}

static double seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void summary(const struct run *r, double took)
{
	(void)printf("%llu items in %.1f s, %u differ, %llu without end, %llu went astray; ended by",
		     (unsigned long long)r->items, took, r->failures, (unsigned long long)r->hangs, (unsigned long long)r->astray);
	for (unsigned v = 0; v < 32; v++)
		if (r->by_vector[v])
			(void)printf(" #%u: %llu", v, (unsigned long long)r->by_vector[v]);
	(void)printf("\n");
}

static int run_all(struct run *r)
{
	struct err err = { 0 };
	double start = seconds();

	if (guest_create(&err) < 0 || native_create(&err) < 0) {
		(void)printf("skipped: %s\n", err.msg);
		return EXIT_SKIP;
	}
	r->has_32 = native_has_32();
	if (!r->has_32)
		(void)printf("this kernel runs no 32-bit code: compatibility mode is left out\n");
	run_saved(r);
	run_directed(r);
	run_random(r);
	summary(r, seconds() - start);
	return r->failures ? 1 : 0;
}

int main(int argc, char **argv)
{
	static struct run r;
	int status;
	pid_t child;

	if (!parse_options(argc, argv, &r.o)) {
		(void)fprintf(stderr, "usage: diff [--seed N] [--count M] [--mode block|single] [--bits 32|64] [--gather]\n"
			      "            [--regressions FILE] [--keep-going] [--append]\n");
		return 2;
	}
	r.current = mmap(NULL, sizeof(*r.current), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (r.current == MAP_FAILED)
		return 2;
	(void)printf("seed 0x%llx\n", (unsigned long long)r.o.seed);
	(void)fflush(stdout);
	child = fork();	/* so that a crash can be reported with its item */
	if (child == 0) {
		status = run_all(&r);
		(void)fflush(stdout);
		_exit(status);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 2;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	(void)printf("CRASH by signal %d in this item, or because of an earlier one:\n", WTERMSIG(status));
	show_line(r.current, stdout);
	return 1;
}
