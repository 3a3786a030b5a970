/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's init and agent (guest/), embedded so that roux needs no files of its own. */
#ifndef BUILD_AGENT_BLOB_H
#define BUILD_AGENT_BLOB_H

#include <stdint.h>

extern const uint8_t agent_blob[];	/* a static ELF executable */
extern const uint32_t agent_blob_size;	/* bytes */

#endif /* BUILD_AGENT_BLOB_H */
