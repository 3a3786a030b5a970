/* SPDX-License-Identifier: Apache-2.0 */
/* The files of /etc that say which machine this is and what it calls others. */
#ifndef GUEST_ETC_H
#define GUEST_ETC_H

#include "guest/conf.h"

/*
 * Takes hold of the root's /etc, which stays ours to write to when the root becomes read-only (Linux 5.2).  A root that
 * has none goes without.
 */
void etc_open(void);

/* Writes hostname, hosts and resolv.conf when the configuration has a network. */
void etc_write(const struct conf *conf);

/*
 * Writes machine-id (machine-id(5)) where the image has one: what an image came with is the same in every machine.
 * NULL: there will be one.
 */
void etc_write_machine_id(const char *id);

#endif /* GUEST_ETC_H */
