/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pcap file of the frames of a link (draft-ietf-opsawg-pcap, nanosecond variant).
 * Each is written at once: whatever ends the VM, the file has all that passed.
 */
#ifndef LINK_CAPTURE_H
#define LINK_CAPTURE_H

#include "link/link.h"

/* Takes over @fd, also on failure.  0 or a negative errno. */
int capture_create(int fd, struct link_capture **ret_capture, struct err *err);
void capture_destroy(struct link_capture *capture);	/* NULL is fine */

/* Adds a frame.  When the file cannot be written it ends there, and a message is logged. */
void capture_frame(struct link_capture *capture, const struct link_frame *frame);

#endif /* LINK_CAPTURE_H */
