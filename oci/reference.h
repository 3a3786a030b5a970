/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of images, as people write them: [HOST[:PORT]/]PATH[:TAG][@DIGEST]
 * (OCI distribution specification 1.1, "Pulling manifests", with docker's defaults).
 *
 *   alpine                       docker.io/library/alpine:latest
 *   localhost:5000/team/x:v1     as it is
 *   quay.io/a/b@sha256:...       the digest decides; a tag beside it is dropped
 */
#ifndef OCI_REFERENCE_H
#define OCI_REFERENCE_H

#include "store/store.h"

#define REFERENCE_PART_MAX 256 /* bytes of host and of path, NUL included */
#define REFERENCE_TAG_MAX 129

struct err;

struct reference {
	char host[REFERENCE_PART_MAX];	/* with ":port" when given */
	char path[REFERENCE_PART_MAX];
	char tag[REFERENCE_TAG_MAX];	/* "" with a digest */
	char digest[STORE_DIGEST_SIZE];	/* "" without */
};

/* 0, or -EINVAL with a sentence that says what is wrong with it. */
int reference_parse(const char *text, struct reference *ret_ref, struct err *err);

/* The full name, which is the key in the store: host/path:tag or host/path@digest. */
void reference_name(const struct reference *ref, char ret_name[STORE_NAME_MAX]);

/* The short name that a person would write: without docker.io/ and library/. */
void reference_familiar(const struct reference *ref, char ret_name[STORE_NAME_MAX]);
/* The same without tag and digest. */
void reference_repository(const struct reference *ref, char ret_name[STORE_NAME_MAX]);

/* Whether @host ("name[:port]") is this machine: plain HTTP is allowed to it only. */
bool reference_host_is_local(const char *host);

#endif /* OCI_REFERENCE_H */
