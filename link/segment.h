/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does for a receiver what it cannot do itself: finishes a checksum, or cuts a long TCP segment
 * into ones that fit into the MTU.
 */
#ifndef LINK_SEGMENT_H
#define LINK_SEGMENT_H

#include "link/link.h"

struct segments {
	struct virtio_net_hdr_v1 hdr;
	uint8_t *bytes;	/* borrowed */
	uint32_t len;
	unsigned count;	/* of frames that come out of it */
	uint32_t tcp, head;	/* offsets of the TCP header and of what follows it */
	uint8_t frame[LINK_MTU_MAX + LINK_HEADER_MAX];	/* the one made last */
};

/*
 * Takes a frame that guard_check() let pass, borrowed until the last segments_get(); where only
 * a checksum is missing it is written into @bytes.  @offloads: enum link_offload of the receiver.
 */
void segments_begin(struct segments *s, const struct virtio_net_hdr_v1 *hdr, uint8_t *bytes, uint32_t len,
		    unsigned offloads);

/* Frame @i of s->count; @ret_frame and @ret_iov are good until the next call. */
void segments_get(struct segments *s, unsigned i, struct link_frame *ret_frame, struct iovec *ret_iov);

#endif /* LINK_SEGMENT_H */
