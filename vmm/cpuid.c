/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources: SDM vol. 2A, CPUID; AMD64 APM vol. 3, appendix E; the KVM leafs as
 * the Linux guest reads them.
 *
 * A guest on a small machine must find its frequencies here (leafs 0x15, 0x16,
 * 0x40000010 and the KVM clock): a translated guest that measures them against
 * an emulated timer measures noise.
 */
#include "vmm/cpuid.h"

#include "base/checked.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#define BIT(n) (1u << (n))

#define XSTATE_X87 BIT(0)
#define XSTATE_SSE BIT(1)
#define XSTATE_AVX BIT(2)
#define XSTATE_AVX512 (BIT(5) | BIT(6) | BIT(7))
#define XSTATE_ALLOWED (XSTATE_X87 | XSTATE_SSE | XSTATE_AVX | XSTATE_AVX512)

#define APIC_TIMER_HZ 1000000000u	/* what both engines' APIC timers count at */
#define TOPOLOGY_THREAD (1u << 8)	/* leaf 0xb, ECX: level type */
#define TOPOLOGY_CORE (2u << 8)

#define ECX1_X2APIC BIT(21)
#define ECX1_TSC_DEADLINE BIT(24)
#define ECX1_XSAVE BIT(26)
#define ECX1_OSXSAVE BIT(27)
#define ECX1_AVX BIT(28)
#define ECX1_HYPERVISOR BIT(31)

/* SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline AES
 * XSAVE AVX F16C RDRAND */
#define ECX1_ALLOWED \
	(BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(17) | BIT(19) | BIT(20) | \
	 ECX1_X2APIC | BIT(22) | BIT(23) | ECX1_TSC_DEADLINE | BIT(25) | ECX1_XSAVE | ECX1_AVX | \
	 BIT(29) | BIT(30))
/* FPU DE PSE TSC MSR PAE CX8 APIC SEP PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 */
#define EDX1_ALLOWED \
	(BIT(0) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(11) | \
	 BIT(13) | BIT(15) | BIT(16) | BIT(17) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26))
/* FSGSBASE BMI1 AVX2 FDP_EXCPTN_ONLY BMI2 ERMS INVPCID no-FPU-CS/DS AVX512F/DQ RDSEED ADX
 * AVX512-IFMA CLFLUSHOPT CLWB AVX512CD SHA AVX512BW/VL */
#define EBX7_ALLOWED \
	(BIT(0) | BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(13) | BIT(16) | \
	 BIT(17) | BIT(18) | BIT(19) | BIT(21) | BIT(23) | BIT(24) | BIT(28) | BIT(29) | \
	 BIT(30) | BIT(31))
/* AVX512-VBMI, VBMI2, GFNI VAES VPCLMULQDQ, AVX512-VNNI, BITALG, VPOPCNTDQ, RDPID */
#define ECX7_ALLOWED \
	(BIT(1) | BIT(6) | BIT(8) | BIT(9) | BIT(10) | BIT(11) | BIT(12) | BIT(14) | BIT(22))
/* FSRM, AVX512-VP2INTERSECT, AVX512-FP16 */
#define EDX7_ALLOWED (BIT(4) | BIT(8) | BIT(23))
/* AVX-VNNI, AVX512-BF16, fast zero-length and short REP strings */
#define EAX71_ALLOWED (BIT(4) | BIT(5) | BIT(10) | BIT(11) | BIT(12))

/* LAHF CR8 (AMD) LZCNT SSE4A misaligned-SSE PREFETCHW */
#define ECX81_ALLOWED (BIT(0) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8))
/* On AMD a copy of leaf 1 below bit 25; SYSCALL NX MMXEXT FXSR_OPT 1-GiB-pages RDTSCP LM */
#define EDX81_ALLOWED \
	(0x0183f37du | BIT(11) | BIT(20) | BIT(22) | BIT(25) | BIT(26) | BIT(27) | BIT(29))

/* Features of leaf 7 that live in ZMM or mask registers, and in YMM registers. */
#define EBX7_AVX512 (BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31))
#define ECX7_AVX512 (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))
#define EDX7_AVX512 (BIT(8) | BIT(23))
#define EBX7_AVX BIT(5)
#define ECX7_AVX (BIT(9) | BIT(10))

/* Leaf 0x40000001 (KVM): NOP I/O delay, kvmclock at the new MSRs, stable across vCPUs. */
#define KVM_FEATURES (BIT(1) | BIT(3) | BIT(24))

static void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	/* Leafs past the last one would repeat another's data on Intel. */
	if ((uint32_t)__get_cpuid_max(leaf & 0x80000000u, NULL) < leaf) {
		memset(r, 0, 4 * sizeof(r[0]));
		return;
	}
	__cpuid_count(leaf, subleaf, r[0], r[1], r[2], r[3]);
}

static struct cpuid_entry *add(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf,
			       bool has_subleafs, const uint32_t r[4])
{
	struct cpuid_entry *e = &t->entry[t->nentries++];

	*e = (struct cpuid_entry){ .leaf = leaf, .subleaf = subleaf,
				   .has_subleafs = has_subleafs };
	memcpy(e->reg, r, sizeof(e->reg));
	return e;
}

/* Adds a leaf of the host with only the allowed bits of each register. */
static void add_masked(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, bool has_subleafs,
		       const uint32_t allowed[4])
{
	uint32_t r[4];

	host_cpuid(leaf, subleaf, r);
	for (unsigned i = 0; i < 4; i++)
		r[i] &= allowed[i];
	(void)add(t, leaf, subleaf, has_subleafs, r);
}

static void add_identity(struct cpuid_table *t, uint32_t max_leaf)
{
	uint32_t r[4];

	host_cpuid(0, 0, r);
	r[CPUID_EAX] = max_leaf;
	(void)add(t, 0, 0, false, r);
}

static void add_features(struct cpuid_table *t, unsigned nvcpus)
{
	uint32_t r[4];

	host_cpuid(1, 0, r);
	/* CLFLUSH line size stays; logical processors; the APIC id comes per vCPU. */
	r[CPUID_EBX] = (r[CPUID_EBX] & 0xff00) | nvcpus << 16;
	r[CPUID_ECX] = (r[CPUID_ECX] & ECX1_ALLOWED) | ECX1_X2APIC | ECX1_TSC_DEADLINE |
		       ECX1_HYPERVISOR;
	r[CPUID_EDX] = (r[CPUID_EDX] & EDX1_ALLOWED) | (nvcpus > 1 ? BIT(28) : 0);
	(void)add(t, 1, 0, false, r);

	/* "See leaf 4", the only descriptor current Intel processors have; AMD: zeros. */
	host_cpuid(2, 0, r);
	(void)add(t, 2, 0, false, r);

	/* APIC timer always running, whatever the idle state. */
	(void)add(t, 6, 0, false, (const uint32_t[4]){ BIT(2), 0, 0, 0 });

	add_masked(t, 7, 0, true, (const uint32_t[4]){ 0, EBX7_ALLOWED, ECX7_ALLOWED, EDX7_ALLOWED });
	add_masked(t, 7, 1, true, (const uint32_t[4]){ EAX71_ALLOWED, 0, 0, 0 });
	host_cpuid(7, 0, r);
	cpuid_find(t, 7, 0)->reg[CPUID_EAX] = r[CPUID_EAX] ? 1 : 0;
}

/* Smallest n with 2^n >= @count. */
static unsigned bits_for(unsigned count)
{
	unsigned n = 0;

	while ((1u << n) < count)
		n++;
	return n;
}

/* Leaf 4 (Intel) describes caches and who shares them; one thread a core here. */
static void add_caches(struct cpuid_table *t, unsigned nvcpus)
{
	uint32_t r[4];

	for (uint32_t i = 0; i < 8; i++) {
		uint32_t level, sharing;

		host_cpuid(4, i, r);
		level = (r[CPUID_EAX] >> 5) & 7;
		sharing = level >= 3 ? (1u << bits_for(nvcpus)) - 1 : 0;
		if ((r[CPUID_EAX] & 0x1f) == 0)
			break;
		r[CPUID_EAX] = (r[CPUID_EAX] & 0x3ff) | sharing << 14 |
			       ((1u << bits_for(nvcpus)) - 1) << 26;
		(void)add(t, 4, i, true, r);
	}
}

/* Leaf 0xb: one package of @nvcpus cores; EDX, the x2APIC id, comes per vCPU. */
static void add_topology(struct cpuid_table *t, unsigned nvcpus)
{
	(void)add(t, 0xb, 0, true, (const uint32_t[4]){ 0, 1, 0 | TOPOLOGY_THREAD, 0 });
	(void)add(t, 0xb, 1, true,
		  (const uint32_t[4]){ bits_for(nvcpus), nvcpus, 1 | TOPOLOGY_CORE, 0 });
	(void)add(t, 0xb, 2, true, (const uint32_t[4]){ 0, 0, 2, 0 });
}

static void add_xstate(struct cpuid_table *t)
{
	struct cpuid_entry *e;
	uint32_t r[4], mask;

	host_cpuid(0xd, 0, r);
	mask = r[CPUID_EAX] & XSTATE_ALLOWED;
	e = add(t, 0xd, 0, true, (const uint32_t[4]){ mask, 0, 0, 0 });
	/* XSAVEOPT, XSAVEC, XGETBV with ECX 1; no XSAVES: nothing supervisor to save. */
	add_masked(t, 0xd, 1, true, (const uint32_t[4]){ BIT(0) | BIT(1) | BIT(2), 0, 0, 0 });
	for (uint32_t i = 2; i < 32; i++) {
		if (!(mask & BIT(i)))
			continue;
		host_cpuid(0xd, i, r);
		(void)add(t, 0xd, i, true, r);
	}
	e->reg[CPUID_ECX] = cpuid_xsave_size(t, mask);
}

static void add_frequencies(struct cpuid_table *t, uint32_t tsc_khz)
{
	uint32_t mhz = (tsc_khz + 500) / 1000;

	/* TSC Hz = crystal Hz * EBX / EAX; the crystal also drives the APIC timer. */
	(void)add(t, 0x15, 0, false,
		  (const uint32_t[4]){ APIC_TIMER_HZ / 1000, tsc_khz, APIC_TIMER_HZ, 0 });
	(void)add(t, 0x16, 0, false, (const uint32_t[4]){ mhz, mhz, 100, 0 });
}

static void add_hypervisor(struct cpuid_table *t, uint32_t tsc_khz)
{
	uint32_t r[4] = { 0x40000010 };

	memcpy(&r[1], "KVMKVMKVM\0\0\0", 12);
	(void)add(t, 0x40000000, 0, false, r);
	(void)add(t, 0x40000001, 0, false, (const uint32_t[4]){ KVM_FEATURES, 0, 0, 0 });
	(void)add(t, 0x40000010, 0, false,
		  (const uint32_t[4]){ tsc_khz, APIC_TIMER_HZ / 1000, 0, 0 });
}

static void add_extended(struct cpuid_table *t, unsigned nvcpus)
{
	uint32_t r[4];

	host_cpuid(0x80000000, 0, r);
	r[CPUID_EAX] = 0x80000008;
	(void)add(t, 0x80000000, 0, false, r);

	host_cpuid(0x80000001, 0, r);
	r[CPUID_ECX] &= ECX81_ALLOWED;
	r[CPUID_EDX] &= EDX81_ALLOWED;
	(void)add(t, 0x80000001, 0, false, r);

	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++) {	/* name; AMD caches */
		host_cpuid(leaf, 0, r);
		(void)add(t, leaf, 0, false, r);
	}
	(void)add(t, 0x80000007, 0, false, (const uint32_t[4]){ 0, 0, 0, BIT(8) });

	host_cpuid(0x80000008, 0, r);
	/* Linear addresses have 48 bits without LA57; FP error pointers restored (AMD). */
	r[CPUID_EAX] = (r[CPUID_EAX] & 0xff) | 48 << 8;
	r[CPUID_EBX] &= BIT(2);
	r[CPUID_ECX] = (nvcpus - 1) | bits_for(nvcpus) << 12;
	r[CPUID_EDX] = 0;
	(void)add(t, 0x80000008, 0, false, r);
}

void cpuid_fill_from_host(struct cpuid_table *table, unsigned nvcpus, uint32_t tsc_khz)
{
	memset(table, 0, sizeof(*table));
	add_identity(table, 0x16);
	add_features(table, nvcpus);
	add_caches(table, nvcpus);
	add_topology(table, nvcpus);
	add_xstate(table);
	add_frequencies(table, tsc_khz);
	add_hypervisor(table, tsc_khz);
	add_extended(table, nvcpus);
	cpuid_clear_xstate(table, XSTATE_ALLOWED & ~cpuid_xcr0_mask(table));
}

/* Index of a leaf's entry, or table->nentries. */
static unsigned find_index(const struct cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
	unsigned i;

	for (i = 0; i < table->nentries; i++) {
		const struct cpuid_entry *e = &table->entry[i];

		if (e->leaf == leaf && (!e->has_subleafs || e->subleaf == subleaf))
			break;
	}
	return i;
}

static const struct cpuid_entry *find_const(const struct cpuid_table *table, uint32_t leaf,
					    uint32_t subleaf)
{
	unsigned i = find_index(table, leaf, subleaf);

	return i < table->nentries ? &table->entry[i] : NULL;
}

struct cpuid_entry *cpuid_find(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf)
{
	unsigned i = find_index(table, leaf, subleaf);

	return i < table->nentries ? &table->entry[i] : NULL;
}

void cpuid_query(const struct cpuid_table *table, const struct cpuid_dynamic *dynamic,
		 uint32_t leaf, uint32_t subleaf, uint32_t ret[4])
{
	const struct cpuid_entry *e = find_const(table, leaf, subleaf);

	memset(ret, 0, 4 * sizeof(ret[0]));
	if (leaf == 0xb) {	/* present at every level, even past the last */
		ret[CPUID_ECX] = subleaf & 0xff;
		ret[CPUID_EDX] = dynamic->apic_id;
	}
	if (!e)
		return;
	memcpy(ret, e->reg, sizeof(e->reg));
	if (leaf == 1) {
		ret[CPUID_EBX] |= dynamic->apic_id << 24;
		ret[CPUID_ECX] |= dynamic->osxsave ? ECX1_OSXSAVE : 0;
	} else if (leaf == 0xb) {
		ret[CPUID_EDX] = dynamic->apic_id;
	} else if (leaf == 0xd && subleaf <= 1) {
		/* Subleaf 1 counts the compacted format, subleaf 0 the standard one; roux
		 * reports the larger for both, which is what software allocates by. */
		ret[CPUID_EBX] = cpuid_xsave_size(table, dynamic->xcr0);
	}
}

void cpuid_clear(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf, enum cpuid_reg reg,
		 uint32_t bits)
{
	struct cpuid_entry *e = cpuid_find(table, leaf, subleaf);

	if (e)
		e->reg[reg] &= ~bits;
}

static void remove_entry(struct cpuid_table *table, struct cpuid_entry *e)
{
	size_t i = (size_t)(e - table->entry);

	memmove(e, e + 1, (table->nentries - i - 1) * sizeof(*e));
	table->nentries--;
}

void cpuid_clear_xstate(struct cpuid_table *table, uint64_t bits)
{
	struct cpuid_entry *xsave;

	if (bits & XSTATE_AVX512 || bits & XSTATE_AVX) {
		cpuid_clear(table, 7, 0, CPUID_EBX, EBX7_AVX512);
		cpuid_clear(table, 7, 0, CPUID_ECX, ECX7_AVX512);
		cpuid_clear(table, 7, 0, CPUID_EDX, EDX7_AVX512);
		cpuid_clear(table, 7, 1, CPUID_EAX, BIT(5));
		bits |= XSTATE_AVX512;	/* AVX-512 goes as a whole */
	}
	if (bits & XSTATE_AVX) {
		cpuid_clear(table, 1, 0, CPUID_ECX, ECX1_AVX | BIT(12) | BIT(29));
		cpuid_clear(table, 7, 0, CPUID_EBX, EBX7_AVX);
		cpuid_clear(table, 7, 0, CPUID_ECX, ECX7_AVX);
		cpuid_clear(table, 7, 1, CPUID_EAX, BIT(4));
	}
	if (bits & (XSTATE_X87 | XSTATE_SSE))
		cpuid_clear(table, 1, 0, CPUID_ECX, ECX1_XSAVE);
	for (uint32_t i = 2; i < 32; i++) {
		struct cpuid_entry *e = (bits & BIT(i)) ? cpuid_find(table, 0xd, i) : NULL;

		if (e)
			remove_entry(table, e);
	}
	xsave = cpuid_find(table, 0xd, 0);
	if (xsave) {
		xsave->reg[CPUID_EAX] &= (uint32_t)~bits;
		xsave->reg[CPUID_ECX] = cpuid_xsave_size(table, xsave->reg[CPUID_EAX]);
	}
}

uint64_t cpuid_xcr0_mask(const struct cpuid_table *table)
{
	const struct cpuid_entry *e = find_const(table, 0xd, 0);

	return e ? e->reg[CPUID_EAX] : 0;
}

uint32_t cpuid_xsave_size(const struct cpuid_table *table, uint64_t xcr0)
{
	uint32_t size = 512 + 64;	/* legacy area and header are always there */

	for (unsigned i = 0; i < table->nentries; i++) {
		const struct cpuid_entry *e = &table->entry[i];
		uint32_t end = e->reg[CPUID_EBX] + e->reg[CPUID_EAX];

		if (e->leaf == 0xd && e->subleaf >= 2 && (xcr0 >> e->subleaf & 1) && end > size)
			size = end;
	}
	return size;
}

/* --- A guest from elsewhere --- */

/* Registers whose bits are features, and their names, as Linux calls them. */
static const struct feature_word {
	uint32_t leaf, subleaf;
	enum cpuid_reg reg;
	const char *name[32];
} feature_words[] = {
	{ 1, 0, CPUID_ECX, { [0] = "sse3", [1] = "pclmulqdq", [9] = "ssse3", [12] = "fma", [13] = "cx16", [17] = "pcid", [19] = "sse4_1",
			     [20] = "sse4_2", [21] = "x2apic", [22] = "movbe", [23] = "popcnt", [24] = "tsc_deadline_timer", [25] = "aes",
			     [26] = "xsave", [28] = "avx", [29] = "f16c", [30] = "rdrand" } },
	{ 1, 0, CPUID_EDX, { [0] = "fpu", [2] = "de", [3] = "pse", [4] = "tsc", [8] = "cx8", [19] = "clflush", [23] = "mmx", [24] = "fxsr",
			     [25] = "sse", [26] = "sse2", [28] = "ht" } },
	{ 6, 0, CPUID_EAX, { [2] = "arat" } },
	{ 7, 0, CPUID_EBX, { [0] = "fsgsbase", [3] = "bmi1", [5] = "avx2", [8] = "bmi2", [9] = "erms", [10] = "invpcid", [16] = "avx512f",
			     [17] = "avx512dq", [18] = "rdseed", [19] = "adx", [21] = "avx512ifma", [23] = "clflushopt", [24] = "clwb",
			     [28] = "avx512cd", [29] = "sha_ni", [30] = "avx512bw", [31] = "avx512vl" } },
	{ 7, 0, CPUID_ECX, { [1] = "avx512vbmi", [6] = "avx512_vbmi2", [8] = "gfni", [9] = "vaes", [10] = "vpclmulqdq",
			     [11] = "avx512_vnni", [12] = "avx512_bitalg", [14] = "avx512_vpopcntdq", [22] = "rdpid" } },
	{ 7, 0, CPUID_EDX, { [4] = "fsrm", [8] = "avx512_vp2intersect", [14] = "serialize", [23] = "avx512_fp16" } },
	{ 7, 1, CPUID_EAX, { [4] = "avx_vnni", [5] = "avx512_bf16", [10] = "fzrm", [11] = "fsrs", [12] = "fsrc" } },
	{ 0xd, 0, CPUID_EAX, { [0] = "x87 state", [1] = "SSE state", [2] = "AVX state", [5] = "AVX-512 state", [6] = "AVX-512 state",
			       [7] = "AVX-512 state" } },
	{ 0xd, 1, CPUID_EAX, { [0] = "xsaveopt", [1] = "xsavec", [2] = "xgetbv1" } },
	{ 0x40000001, 0, CPUID_EAX, { [1] = "kvm_nopiodelay", [3] = "kvmclock", [24] = "kvmclock_stable" } },
	{ 0x80000001, 0, CPUID_ECX, { [0] = "lahf_lm", [5] = "abm", [6] = "sse4a", [7] = "misalignsse", [8] = "3dnowprefetch" } },
	{ 0x80000001, 0, CPUID_EDX, { [11] = "syscall", [20] = "nx", [22] = "mmxext", [25] = "fxsr_opt", [26] = "pdpe1gb", [27] = "rdtscp",
				      [29] = "lm" } },
	{ 0x80000007, 0, CPUID_EDX, { [8] = "constant_tsc" } },
	{ 0x80000008, 0, CPUID_EBX, { [2] = "xsaveerptr" } },
};

/* A list that grows as long as there is room. */
struct list {
	char *text;
	size_t size, len;
};

static void list_add(struct list *l, const char *what)
{
	int n = l->len < l->size ? snprintf(l->text + l->len, l->size - l->len, "%s%s", l->len ? ", " : "", what) : 0;

	l->len += (size_t)(n > 0 ? n : 0);
}

static uint32_t reg_of(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, enum cpuid_reg reg)
{
	const struct cpuid_entry *e = find_const(t, leaf, subleaf);

	return e ? e->reg[reg] : 0;
}

static void list_features(const struct feature_word *w, uint32_t bits, struct list *missing)
{
	char other[48];

	for (unsigned i = 0; i < 32; i++) {
		if (!(bits & BIT(i)))
			continue;
		(void)snprintf(other, sizeof(other), "bit %u of leaf 0x%x", i, w->leaf);
		list_add(missing, w->name[i] ? w->name[i] : other);
	}
}

/* Where the state components that the guest uses lie. */
static bool same_layout(const struct cpuid_table *a, const struct cpuid_table *b, uint64_t components)
{
	for (uint32_t i = 2; i < 32; i++) {
		const struct cpuid_entry *x = find_const(a, 0xd, i), *y = find_const(b, 0xd, i);

		if (components >> i & 1 && (!x || !y || memcmp(x->reg, y->reg, 2 * sizeof(x->reg[0])) != 0))
			return false;
	}
	return true;
}

/* Each leaf once, and only components that may be used: what has other lengths could lie about sizes. */
static bool is_sane(const struct cpuid_table *t)
{
	const uint64_t components = t->nentries <= CPUID_ENTRIES_MAX ? cpuid_xcr0_mask(t) : 0;

	for (unsigned i = 0; components && i < t->nentries; i++) {
		const struct cpuid_entry *e = &t->entry[i];

		if (find_const(t, e->leaf, e->subleaf) != e || (e->leaf == 0xd && !e->has_subleafs) ||
		    (e->leaf == 0xd && e->subleaf >= 2 && (e->subleaf >= 32 || !(components >> e->subleaf & 1))))
			return false;
	}
	return components != 0;
}

bool cpuid_offers(const struct cpuid_table *offered, const struct cpuid_table *wanted, char *ret_missing, size_t size)
{
	struct list missing = { .text = ret_missing, .size = size };
	const struct cpuid_entry *x = find_const(offered, 0, 0), *y;

	ret_missing[0] = '\0';
	if (!is_sane(wanted)) {
		list_add(&missing, "it is no processor's");
		return false;
	}
	y = find_const(wanted, 0, 0);
	if (!x || !y || memcmp(&x->reg[CPUID_EBX], &y->reg[CPUID_EBX], 3 * sizeof(x->reg[0])) != 0)
		list_add(&missing, "a processor of the same maker");
	for (unsigned i = 0; i < ARRAY_SIZE(feature_words); i++) {
		const struct feature_word *w = &feature_words[i];

		list_features(w, reg_of(wanted, w->leaf, w->subleaf, w->reg) & ~reg_of(offered, w->leaf, w->subleaf, w->reg), &missing);
	}
	if (!same_layout(offered, wanted, cpuid_xcr0_mask(wanted)))
		list_add(&missing, "vector state of the same layout");
	if ((reg_of(wanted, 0x80000008, 0, CPUID_EAX) & 0xff) > (reg_of(offered, 0x80000008, 0, CPUID_EAX) & 0xff))
		list_add(&missing, "physical addresses as wide");
	return missing.len == 0;
}

/* Leafs that only tell rates, which differ a little from one start of a host to the next. */
static bool tells_rate(uint32_t leaf)
{
	return leaf == 0x15 || leaf == 0x16 || leaf == 0x40000010;
}

bool cpuid_same(const struct cpuid_table *a, const struct cpuid_table *b)
{
	if (a->nentries != b->nentries || a->nentries > CPUID_ENTRIES_MAX)
		return false;
	for (unsigned i = 0; i < a->nentries; i++)
		if (!tells_rate(a->entry[i].leaf) && memcmp(&a->entry[i], &b->entry[i], sizeof(a->entry[i])) != 0)
			return false;
	return true;
}

void cpuid_take(struct cpuid_table *table, const struct cpuid_table *wanted)
{
	struct cpuid_table old = *table;

	*table = *wanted;
	for (unsigned i = 0; i < table->nentries; i++) {
		struct cpuid_entry *e = &table->entry[i];
		const struct cpuid_entry *own = tells_rate(e->leaf) ? find_const(&old, e->leaf, e->subleaf) : NULL;

		if (own)
			*e = *own;
	}
}
