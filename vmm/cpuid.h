/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What CPUID tells a guest.
 *
 * The table is the host's with everything removed that is not on roux's list,
 * so that a guest sees the same processor on every engine.  An engine that
 * cannot run a feature clears its bit with cpuid_clear() before vCPUs exist.
 *
 * Left out on purpose: what both engines would have to emulate without a guest
 * gaining by it (MONITOR, MTRR, MCE/MCA, SMEP/SMAP/UMIP/PKU/CET, LA57, MPX, TSX,
 * PMU, AMX, SVM/VMX, speculation controls).
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CPUID_ENTRIES_MAX 64

/* MSRs of the KVM paravirtual interface that leaf 0x40000001 promises. */
#define MSR_KVM_WALL_CLOCK_NEW 0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01u

enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };

struct cpuid_entry {
	uint32_t leaf, subleaf;
	bool has_subleafs;	/* false: any ECX selects this entry */
	uint32_t reg[4];	/* by enum cpuid_reg */
};

struct cpuid_table {
	struct cpuid_entry entry[CPUID_ENTRIES_MAX];
	unsigned nentries;
};

/* What of a vCPU's own state shows in its CPUID. */
struct cpuid_dynamic {
	uint32_t apic_id;
	bool osxsave;	/* CR4.OSXSAVE */
	uint64_t xcr0;
};

/* Fills @table for a machine of @nvcpus processors with a TSC of @tsc_khz. */
void cpuid_fill_from_host(struct cpuid_table *table, unsigned nvcpus, uint32_t tsc_khz);

/*
 * Executes CPUID: @ret gets EAX, EBX, ECX, EDX.  A leaf beyond the last gives
 * zeros.  Any thread once the table is complete.
 */
void cpuid_query(const struct cpuid_table *table, const struct cpuid_dynamic *dynamic,
		 uint32_t leaf, uint32_t subleaf, uint32_t ret[4]);

/*
 * Whether a guest that was told @wanted can run on a VM that offers @offered: by the same maker, with all features, state
 * components of the same layout, and addresses as wide.  If not, @ret_missing says what is missing, "avx2, serialize".
 * @wanted may be from a hostile file.
 * Caches, topology and names are only told.
 */
bool cpuid_offers(const struct cpuid_table *offered, const struct cpuid_table *wanted, char *ret_missing, size_t size);

/* Whether they tell a guest the same, but for the rates of clocks. */
bool cpuid_same(const struct cpuid_table *a, const struct cpuid_table *b);

/* Makes @table say what @wanted does, but for the rates of this host's clocks. */
void cpuid_take(struct cpuid_table *table, const struct cpuid_table *wanted);

/* Finds the entry of a leaf, or NULL. */
struct cpuid_entry *cpuid_find(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf);

/* Clears @bits of a register; does nothing where the leaf is absent. */
void cpuid_clear(struct cpuid_table *table, uint32_t leaf, uint32_t subleaf, enum cpuid_reg reg,
		 uint32_t bits);

/*
 * Takes the state components @bits (XCR0 layout) away: from leaf 0xd, and the
 * features that need them from leafs 1 and 7.
 */
void cpuid_clear_xstate(struct cpuid_table *table, uint64_t bits);

/* XCR0 bits the guest may set. */
uint64_t cpuid_xcr0_mask(const struct cpuid_table *table);

/* Bytes of a standard-format XSAVE area for @xcr0 (SDM vol. 1, 13.4). */
uint32_t cpuid_xsave_size(const struct cpuid_table *table, uint64_t xcr0);

#endif /* VMM_CPUID_H */
