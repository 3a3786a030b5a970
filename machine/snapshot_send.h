/* SPDX-License-Identifier: Apache-2.0 */
/* A guest on its way through a pipe, from machine/snapshot_send.c to machine/snapshot_make.c. */
#ifndef MACHINE_SNAPSHOT_SEND_H
#define MACHINE_SNAPSHOT_SEND_H

#include <stdint.h>

#define SNAPSHOT_SEND_MAGIC "rouxsend"

struct send_head {
	char magic[8];
	uint64_t memory;
	char engine[16];
};

/* Memory that follows; 0 bytes: there is no more, and state of @offset bytes follows. */
struct send_run {
	uint64_t offset, len;
};

#endif /* MACHINE_SNAPSHOT_SEND_H */
