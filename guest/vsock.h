/* SPDX-License-Identifier: Apache-2.0 */
/* AF_VSOCK as the kernel defines it (vsock(7)); small C libraries lack the header. */
#ifndef GUEST_VSOCK_H
#define GUEST_VSOCK_H

/*
 * Listens on @port for any peer.  Returns a socket, or -1 with errno
 * (EAFNOSUPPORT: the kernel has no vsock).
 */
int vsock_listen(unsigned port);

/*
 * Connects to @port of the host (CID 2).  Returns a socket, or -1 with errno
 * (ENODEV: no device yet; ECONNRESET: nobody listens).
 */
int vsock_connect_host(unsigned port);

#endif /* GUEST_VSOCK_H */
