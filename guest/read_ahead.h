/* SPDX-License-Identifier: Apache-2.0 */
/* Has files in the guest's memory before somebody needs them: in a template, all machines made of it have them then. */
#ifndef GUEST_READ_AHEAD_H
#define GUEST_READ_AHEAD_H

struct read_ahead_request;

/*
 * For request_read_ahead().  Reads what is a file and is there; nothing when less than half of the memory is free, as a
 * template's guests are to have room.
 */
void read_ahead(struct read_ahead_request *req);

#endif /* GUEST_READ_AHEAD_H */
