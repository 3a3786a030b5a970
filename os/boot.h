/* SPDX-License-Identifier: Apache-2.0 */
/* By which one run of the host's kernel is told from the others (random(4), boot_id). */
#ifndef OS_BOOT_H
#define OS_BOOT_H

#include <stdbool.h>

#define BOOT_ID_SIZE 37	/* bytes, NUL included */

/* False where the kernel does not tell. */
bool boot_id(char ret_id[BOOT_ID_SIZE]);

#endif /* OS_BOOT_H */
