/* SPDX-License-Identifier: Apache-2.0 */
/* In what two snapshots differ. */
#ifndef LIFE_SNAPSHOT_DIFF_H
#define LIFE_SNAPSHOT_DIFF_H

#include <stddef.h>
#include <stdint.h>

struct err;

/* A part of guest memory, in bytes, counted by pages: they are zero in both, equal, other, or zero in one only. */
struct snapshot_region {
	const char *name;	/* static: where in guest-physical memory it is */
	uint64_t zero, equal, changed, only_a, only_b;
};

/* A part of the machine's state: a processor, a device. */
struct snapshot_part {
	char name[32];
	size_t bytes, differ;	/* of the longer one; how many of them are other, 0: none */
	char only;	/* 'A' or 'B': the other has no such part.  0: both have it */
};

/* Something in which the machines differ, as text; "-": the other has it. */
struct snapshot_key {
	char *name, *a, *b;	/* owned */
};

#define SNAPSHOT_REGIONS 3u

struct snapshot_diff {
	struct snapshot_region region[SNAPSHOT_REGIONS + 1];	/* the last used one is their sum */
	size_t nregions;
	struct snapshot_part *part;	/* owned */
	size_t nparts;
	struct snapshot_key *key;	/* owned */
	size_t nkeys;
};

/* Compares the snapshots at two paths.  0, or a negative errno with a sentence; to be finished in both cases. */
int snapshot_diff(const char *a, const char *b, struct snapshot_diff *ret_diff, struct err *err);
void snapshot_diff_finish(struct snapshot_diff *diff);

#endif /* LIFE_SNAPSHOT_DIFF_H */
