/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets for a process whose network namespace is empty: a server outside makes
 * them, of a few kinds only, and hands them over.
 *
 *   jailed process   broker_host()->socket ---- kind, how many ---> broker_serve()
 *                                          <--- descriptors -------
 *
 * A socket belongs to the namespace it was made in, so that the jailed process may
 * connect and bind it as if it were there itself.  To save round trips it asks for
 * several at once when it uses many.
 */
#ifndef LINK_BROKER_H
#define LINK_BROKER_H

#include "link/user.h"

struct broker;

/* Makes sockets by socket(2) until broker_attach().  0 with ownership in @ret_broker, or -ENOMEM. */
int broker_create(struct broker **ret_broker);

/* From now on sockets come from the server behind @fd, borrowed for the broker's life. */
void broker_attach(struct broker *broker, int fd);

/* Closes what was not used.  NULL is fine. */
void broker_destroy(struct broker *broker);

/* The callers of its socket() are one thread.  Borrowed, for the broker's life. */
const struct link_host *broker_host(const struct broker *broker);

/*
 * The server: answers on @fd (SOCK_SEQPACKET) until the other end closes.  First
 * gives up all rights but those it needs; returns a negative errno when it cannot.
 */
int broker_serve(int fd);

#endif /* LINK_BROKER_H */
