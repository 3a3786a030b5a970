/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepts connections and gives each a session process of its own, so that no
 * error in a session can end this process, which in a guest is pid 1.
 */
#ifndef GUEST_SERVER_H
#define GUEST_SERVER_H

#include "guest/request.h"

#define SERVER_PORTS_MAX 8

/* Where sessions come from.  All descriptors are owned by the server's caller. */
struct server {
	int listen_fd;	/* listening socket, or -1 */
	int first_fd;	/* a connection made already; closed by the server; or -1 */
	int port_fd[SERVER_PORTS_MAX];	/* streams that carry one session after the other */
	unsigned nports;
};

/*
 * Serves until a session asks for power-off or reboot, or a primary session
 * ends; reaps every child there is.  Returns 0 with what was asked for, or -1
 * with errno when it cannot even begin.
 */
int server_run(const struct server *server, struct power_request *ret_power);

#endif /* GUEST_SERVER_H */
