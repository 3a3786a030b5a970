/* SPDX-License-Identifier: Apache-2.0 */
#include "link/broker.h"
#include "link/link.h"
#include "link/policy.h"
#include "link/user.h"
#include "net/net.h"
#include "os/err.h"
#include "os/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define S_NS 1000000000ull

/* ------------------------------------------------------------------ policy */

static struct policy *policy;

static int make_policy(void **state)
{
	policy = policy_create();
	return policy ? 0 : -1;
}

static int free_policy(void **state)
{
	policy_destroy(policy);
	return 0;
}

static void add(const char *rule)
{
	assert_int_equal(policy_add(policy, rule, NULL), 0);
}

static bool may(enum policy_proto proto, const char *addr, uint16_t port)
{
	struct net_endpoint to = { .port = port };

	assert_true(net_addr_parse(addr, &to.addr));
	return policy_allows(policy, proto, &to, S_NS);
}

static void test_without_rules_everything_is_allowed(void **state)
{
	assert_true(may(POLICY_TCP, "192.0.2.1", 80));
	assert_true(may(POLICY_ICMP, "2001:db8::1", 0));
}

static void test_the_first_rule_that_fits_decides(void **state)
{
	add("allow 10.1.0.0/16 tcp 80-443");
	add("deny 10.0.0.0/8");
	add("deny 2001:db8::/32 udp");
	assert_true(may(POLICY_TCP, "10.1.2.3", 80));
	assert_true(may(POLICY_TCP, "10.1.2.3", 443));
	assert_false(may(POLICY_TCP, "10.1.2.3", 444));
	assert_false(may(POLICY_UDP, "10.1.2.3", 80));
	assert_false(may(POLICY_TCP, "10.2.0.1", 80));
	assert_true(may(POLICY_TCP, "11.0.0.1", 80));
	assert_false(may(POLICY_UDP, "2001:db8::5", 53));
	assert_true(may(POLICY_TCP, "2001:db8::5", 53));
}

static void test_a_rule_with_a_port_is_not_about_icmp(void **state)
{
	add("allow any 443");
	add("deny any");
	assert_true(may(POLICY_UDP, "192.0.2.1", 443));
	assert_false(may(POLICY_ICMP, "192.0.2.1", 0));
}

static void test_names_stand_for_what_look_ups_gave(void **state)
{
	struct net_addr addr;

	add("allow *.debian.org tcp");
	add("deny any");
	assert_true(policy_has_names(policy));
	assert_false(may(POLICY_TCP, "192.0.2.7", 80));
	assert_true(net_addr_parse("192.0.2.7", &addr));
	policy_learn(policy, "deb.debian.org.evil.example", &addr, 600, S_NS);
	assert_false(may(POLICY_TCP, "192.0.2.7", 80));
	policy_learn(policy, "deb.debian.org", &addr, 600, S_NS);
	assert_true(may(POLICY_TCP, "192.0.2.7", 80));
	assert_false(may(POLICY_UDP, "192.0.2.7", 80));
	assert_false(may(POLICY_TCP, "192.0.2.8", 80));
}

static void test_what_was_learned_runs_out(void **state)
{
	struct net_endpoint to = { .port = 80 };

	add("allow www.example.org");
	add("deny any");
	assert_true(net_addr_parse("192.0.2.7", &to.addr));
	policy_learn(policy, "www.example.org", &to.addr, 300, S_NS);
	assert_true(policy_allows(policy, POLICY_TCP, &to, 300 * S_NS));
	assert_false(policy_allows(policy, POLICY_TCP, &to, 302 * S_NS));
}

static void test_rules_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = { "", "allow", "permit any", "allow 10.0.0.0/33", "allow any tcp 1-0",
					   "allow any 70000", "deny a..b", "deny *.", "deny any icmp 5",
					   "deny any tcp 1 2", "allow 1.2.3.4/", "allow -1", "allow any tcp -5" };
	struct err err;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (policy_add(policy, bad[i], &err) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_non_null(strstr(err.msg, "is no rule"));
	}
}

/* -------------------------------------------------------------- publishing */

static void test_published_ports_are_read_as_docker_writes_them(void **state)
{
	struct link_publish p;
	struct net_addr addr;

	assert_int_equal(link_publish_parse("8080:80", &p, NULL), 0);
	assert_int_equal(p.host.port, 8080);
	assert_int_equal(p.guest_port, 80);
	assert_false(p.udp);
	assert_int_equal(link_publish_parse("127.0.0.1:5353:53/udp", &p, NULL), 0);
	assert_true(net_addr_parse("127.0.0.1", &addr) && net_addr_equal(&addr, &p.host.addr));
	assert_true(p.udp);
	assert_int_equal(link_publish_parse("[::1]:1:2/tcp", &p, NULL), 0);
	assert_true(net_addr_parse("::1", &addr) && net_addr_equal(&addr, &p.host.addr));
	assert_int_equal(link_publish_parse("80", &p, NULL), 0);
	assert_int_equal(p.host.port, 0);
	assert_int_equal(link_publish_parse("127.0.0.1::80", &p, NULL), 0);
	assert_int_equal(p.host.port, 0);
	assert_int_equal(link_publish_parse("", &p, NULL), -EINVAL);
	assert_int_equal(link_publish_parse("80:0", &p, NULL), -EINVAL);
	assert_int_equal(link_publish_parse("80:70000", &p, NULL), -EINVAL);
	assert_int_equal(link_publish_parse("x:80:80", &p, NULL), -EINVAL);
	assert_int_equal(link_publish_parse("80:80/sctp", &p, NULL), -EINVAL);
}

/* ----------------------------------------------------------------- sockets */

/* A broker whose server is another process; @ret_pid is that. */
static struct broker *brokered(int sock[2], pid_t *ret_pid)
{
	struct broker *b;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
	*ret_pid = fork();
	if (*ret_pid == 0) {
		(void)close(sock[0]);
		_exit(broker_serve(sock[1]) < 0);
	}
	(void)close(sock[1]);
	assert_int_equal(broker_create(&b), 0);
	broker_attach(b, sock[0]);
	return b;
}

static int end_of(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_sockets_come_from_another_process(void **state)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int sock[2], fd[200];
	const struct link_host *host;
	struct broker *b;
	pid_t pid;

	b = brokered(sock, &pid);
	host = broker_host(b);
	for (unsigned i = 0; i < 200; i++) {
		fd[i] = host->socket(host->ctx, AF_INET, i % 2 ? SOCK_STREAM : SOCK_DGRAM, 0);
		assert_true(fd[i] >= 0);
		assert_true(fcntl(fd[i], F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(fd[i], F_GETFD) & FD_CLOEXEC);
		assert_int_equal(bind(fd[i], (struct sockaddr *)&at, sizeof(at)), 0);
	}
	for (unsigned i = 0; i < 200; i++)
		(void)close(fd[i]);
	assert_int_equal(host->socket(host->ctx, AF_UNIX, SOCK_STREAM, 0), -EPROTONOSUPPORT);
	broker_destroy(b);
	(void)close(sock[0]);
	assert_int_equal(end_of(pid), 0);
}

static void test_the_server_of_sockets_ends_at_a_bad_request(void **state)
{
	static const uint8_t bad[][3] = { { 99, 1 }, { 0, 0 }, { 0, 255 }, { 0, 1, 1 } };

	for (unsigned i = 0; i < 4; i++) {
		int sock[2];
		pid_t pid;
		struct broker *b = brokered(sock, &pid);
		const struct link_host *host = broker_host(b);

		assert_true(send(sock[0], bad[i], i == 3 ? 3 : 2, 0) > 0);
		assert_int_equal(end_of(pid), 1);
		assert_true(host->socket(host->ctx, AF_INET, SOCK_STREAM, 0) < 0);
		broker_destroy(b);
		(void)close(sock[0]);
	}
}

/* ------------------------------------------------------ limits and capture */

static struct {
	struct link link;	/* first */
	unsigned sent;
} back;

static struct loop *loop;
static unsigned writable;

static int count_send(struct link *link, const struct link_frame *frame)
{
	back.sent++;
	return 0;
}

static void no_ready(struct link *link)
{
}

static void finish(struct link *link)
{
	link_finish(link);
}

static const struct link_ops count_ops = { .name = "test", .send = count_send, .ready = no_ready,
					   .destroy = finish };

static uint64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * S_NS + (uint64_t)t.tv_nsec;
}

static uint8_t bytes[1000];
static const struct iovec iov = { bytes, sizeof(bytes) };
static const struct link_frame frame = { .iov = &iov, .niov = 1, .len = sizeof(bytes) };

static void fill_up(void *ctx)
{
	writable++;
	while (link_send(&back.link, &frame) == 0)
		;
	if (back.sent >= 400)
		loop_quit(loop);
}

static int make_link(void **state)
{
	static const uint8_t mac[6] = { 2 };

	memset(&back, 0, sizeof(back));
	writable = 0;
	if (loop_create(&loop, NULL) < 0)
		return -1;
	link_init(&back.link, &count_ops, loop, mac, LINK_MTU_DEFAULT);
	link_attach(&back.link, &(struct link_sink){ .writable = fill_up });
	return 0;
}

static int free_link(void **state)
{
	link_destroy(&back.link);
	loop_destroy(loop);
	return 0;
}

static void test_a_limit_of_frames_holds(void **state)
{
	const struct link_limits some = { .frames_per_s = 1000 }, none = { 0 };
	uint64_t begin;

	assert_int_equal(link_limit(&back.link, &some, &none, NULL), 0);
	begin = now_ns();
	fill_up(NULL);
	assert_true(back.sent >= 100 && back.sent <= 102);	/* a burst */
	assert_int_equal(loop_run(loop, NULL), 0);
	/* The other 300 take 0.3 s at least; more where the host is busy. */
	assert_true(now_ns() - begin >= S_NS * 29 / 100);
	assert_true(writable > 1);
}

static void test_a_limit_of_bytes_holds(void **state)
{
	const struct link_limits some = { .bytes_per_s = 1000000 }, none = { 0 };
	uint64_t begin;

	assert_int_equal(link_limit(&back.link, &some, &none, NULL), 0);
	begin = now_ns();
	fill_up(NULL);
	assert_int_equal(loop_run(loop, NULL), 0);
	assert_true(now_ns() - begin >= S_NS * 29 / 100);
}

static void test_a_capture_is_a_pcap_file(void **state)
{
	char path[] = "/tmp/roux-pcap-XXXXXX";
	uint32_t head[6], record[4];
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(link_capture(&back.link, dup(fd), NULL), 0);
	bytes[999] = 0x5a;
	assert_int_equal(link_send(&back.link, &frame), 0);
	link_destroy(&back.link);
	back.link.capture = NULL;
	assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
	assert_int_equal(head[0], 0xa1b23c4d);
	assert_int_equal(head[5], 1);
	assert_int_equal(pread(fd, record, sizeof(record), sizeof(head)), sizeof(record));
	assert_int_equal(record[2], 1000);
	assert_int_equal(pread(fd, bytes, 1, sizeof(head) + sizeof(record) + 999), 1);
	assert_int_equal(bytes[0], 0x5a);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_without_rules_everything_is_allowed, make_policy, free_policy),
		cmocka_unit_test_setup_teardown(test_the_first_rule_that_fits_decides, make_policy, free_policy),
		cmocka_unit_test_setup_teardown(test_a_rule_with_a_port_is_not_about_icmp, make_policy, free_policy),
		cmocka_unit_test_setup_teardown(test_names_stand_for_what_look_ups_gave, make_policy, free_policy),
		cmocka_unit_test_setup_teardown(test_what_was_learned_runs_out, make_policy, free_policy),
		cmocka_unit_test_setup_teardown(test_rules_that_are_none_are_refused, make_policy, free_policy),
		cmocka_unit_test(test_published_ports_are_read_as_docker_writes_them),
		cmocka_unit_test(test_sockets_come_from_another_process),
		cmocka_unit_test(test_the_server_of_sockets_ends_at_a_bad_request),
		cmocka_unit_test_setup_teardown(test_a_limit_of_frames_holds, make_link, free_link),
		cmocka_unit_test_setup_teardown(test_a_limit_of_bytes_holds, make_link, free_link),
		cmocka_unit_test_setup_teardown(test_a_capture_is_a_pcap_file, make_link, free_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
