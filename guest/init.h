/* SPDX-License-Identifier: Apache-2.0 */
/* pid 1 of a guest: sets the machine up, serves sessions, switches it off. */
#ifndef GUEST_INIT_H
#define GUEST_INIT_H

/* Never returns: a pid 1 that ends makes the kernel panic. */
__attribute__((noreturn)) void init_run(void);

#endif /* GUEST_INIT_H */
