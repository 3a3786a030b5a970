/* SPDX-License-Identifier: Apache-2.0 */
/* What translated code tells the C side about a look-up that missed; lies in code memory. */
#ifndef ENGINE_DBT_MISS_H
#define ENGINE_DBT_MISS_H

#include <stdint.h>

/* What runs when a look-up cannot succeed. */
enum miss_instead {
	MISS_SLOW,	/* the instruction, by a slow access: the look-up was for it alone */
	MISS_PLAIN,	/* a BLOCK_PLAIN block from the instruction on: the look-up was for others too */
};

struct miss_site {
	int32_t retry;	/* host address to go to once the entry is there, relative to this struct */
	uint16_t size;	/* bytes from the address looked up */
	uint8_t rw;	/* MEM_READ, MEM_WRITE or both */
	uint8_t instead;	/* enum miss_instead */
	uint8_t user;	/* privilege of the access */
	uint8_t flags_saved;	/* guest flags are in cpu.tmp[3] as LAHF and SETO left them */
	uint8_t careful;	/* struct insn.mem_careful */
} __attribute__((packed));

/* The look-up itself, which is inside the instruction that missed: a host address. */
static inline uint64_t site_pc(uint64_t data, const struct miss_site *site)
{
	return data + (uint64_t)(int64_t)site->retry;
}

#endif /* ENGINE_DBT_MISS_H */
