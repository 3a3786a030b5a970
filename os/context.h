/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process has from whoever started it and cannot take on later: its user, rights, namespaces, root, control
 * groups, limits and priority, and those variables of its environment that mean something to roux or its libraries.
 * Work that was prepared by one process is good for another only if both have the same.
 */
#ifndef OS_CONTEXT_H
#define OS_CONTEXT_H

struct sha256;

/* Adds all that of the calling process to @hash.  0, or a negative errno when some of it cannot be read. */
int context_add(struct sha256 *hash);

#endif /* OS_CONTEXT_H */
