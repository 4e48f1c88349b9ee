/*
 * scheduler/scheduler.h: kube-scheduler: gives each pod without a node one, by
 * upstream's framework: queue, snapshot of nodes, plugins, binding.
 *
 * It knows the cluster only through client/; it never evicts for other reasons than
 * preemption and never changes a pod but for binding and its PodScheduled condition.
 */
#ifndef SKIFF_SCHEDULER_SCHEDULER_H
#define SKIFF_SCHEDULER_SCHEDULER_H

/* The component: upstream's flags where they mean the same (--help lists them). */
int kube_scheduler_main(int argc, char **argv);

#endif
